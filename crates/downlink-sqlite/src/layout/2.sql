
    ALTER TABLE topics ADD COLUMN evicted INTEGER NOT NULL DEFAULT 0; -- number of the eviction that raised the floor
    ALTER TABLE topics ADD COLUMN lower_floor INTEGER NOT NULL DEFAULT 1; -- second to last evicted offset + 1
    UPDATE topics SET evicted = 1, lower_floor = max(floor - 1, 1) WHERE floor > 1;
    CREATE INDEX topics_by_evicted ON topics (evicted) WHERE evicted <> 0;
    -- With `floor > 1` as condition, SQLite would begin there instead of at the floor that is asked for.
    DROP INDEX topics_by_floor;
    CREATE INDEX topics_by_floor ON topics (floor) WHERE floor <> 1;
    ALTER TABLE events ADD COLUMN checksum INTEGER; -- of offset, id and payload; NULL is not verified
    INSERT INTO meta
        SELECT 'evictions', EXISTS (SELECT 1 FROM topics WHERE floor > 1) OR value > 1
        FROM meta WHERE name = 'forgotten';
    INSERT INTO meta SELECT 'forgotten_evicted', value > 1 FROM meta WHERE name = 'forgotten';
    INSERT INTO meta VALUES ('clock_delta', 0); -- milliseconds, wall clock less time stamps
