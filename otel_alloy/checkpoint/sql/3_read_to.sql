-- Schema version 3: up to where a source was read, also where nothing was there. Times as in
-- version 1.
ALTER TABLE source ADD COLUMN read_to INTEGER;
