"""CONVERT: a notification of Alloy becomes an OTLP span and an OTLP log record.

Pure: time, resource and randomness never come from here. Nothing in this package opens a
connection, reads a clock or knows where the bytes go.
"""
