
    CREATE TABLE marks (
        position INTEGER PRIMARY KEY,
        mark INTEGER NOT NULL,         -- 64 bits, as a signed number
        time INTEGER                   -- of the engine, 64 bits, as a signed number; only in a cluster node
    );
    CREATE TABLE hub (
        number INTEGER PRIMARY KEY,    -- always 1
        state BLOB NOT NULL            -- the state of the hub; only in a cluster node
    );
    INSERT INTO meta VALUES
        ('applied', 0),                -- 1 once a chunk was applied
        ('base', 0),                   -- the first offset of position 0
        ('unknown_below', 1);          -- nothing is known below this offset
