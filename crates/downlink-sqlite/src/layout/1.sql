
    CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
    CREATE TABLE epochs (
        number INTEGER PRIMARY KEY,
        epoch TEXT NOT NULL UNIQUE,
        first_offset INTEGER NOT NULL
    );
    CREATE TABLE topics (
        number INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again
        kind INTEGER NOT NULL,
        name TEXT NOT NULL,
        floor INTEGER NOT NULL,        -- last evicted offset + 1
        floor_at INTEGER NOT NULL,     -- milliseconds; no evicted event is younger
        finished INTEGER,              -- offset of the finish mark
        finished_at INTEGER,
        emptied INTEGER                -- last offset, once nothing and no mark is kept
    );
    CREATE UNIQUE INDEX topics_by_name ON topics (kind, name);
    CREATE INDEX topics_by_floor ON topics (floor) WHERE floor > 1;
    CREATE INDEX topics_by_finish ON topics (finished_at) WHERE finished IS NOT NULL;
    CREATE INDEX topics_by_emptied ON topics (emptied) WHERE emptied IS NOT NULL;
    CREATE TABLE events (
        offset INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,           -- milliseconds; rises with the offset
        topics NOT NULL,               -- the number, or several as 8 bytes each, little-endian
        id TEXT,                       -- given by the publisher
        fingerprint BLOB,              -- of what it says, if it has an id
        finish INTEGER NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE INDEX events_by_id ON events (id) WHERE id IS NOT NULL;
    CREATE TABLE memberships (
        topic INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        bytes INTEGER NOT NULL,        -- what the event counts towards its topic's bound
        PRIMARY KEY (topic, offset)
    ) WITHOUT ROWID;
    CREATE TABLE keys (
        offset INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        credential TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BLOB NOT NULL
    );
    CREATE UNIQUE INDEX keys_by_key ON keys (credential, key);
    INSERT INTO meta VALUES
        ('next_offset', 1), ('newest_at', 0), ('indexed', 1), ('flushes', 0), ('rules', ''),
        ('forgotten', 1), ('forgotten_at', 0), ('fingerprint_key', randomblob(16));
