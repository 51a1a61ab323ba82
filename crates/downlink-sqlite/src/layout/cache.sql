
    CREATE TABLE marks (
        position INTEGER PRIMARY KEY,
        mark INTEGER NOT NULL
    );
    INSERT INTO meta VALUES
        ('applied', 0),                -- 1 once a chunk was applied
        ('base', 0);                   -- the first offset of position 0
