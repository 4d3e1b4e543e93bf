"""ROUTE: who gets which execution. Pure: values in, decisions out; nothing is read or sent here."""
