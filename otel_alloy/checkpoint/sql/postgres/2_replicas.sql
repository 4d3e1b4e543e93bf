-- Several replicas that share the work (../../leases.py), and the request budget of an API key
-- (../../shared_budget.py).
-- oldest reader: 1
CREATE TABLE lease (
    unit       text COLLATE "C" PRIMARY KEY,
    owner      text COLLATE "C",
    last_owner text,
    epoch      bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    taken_at   timestamptz NOT NULL,
    settled_to bigint
) WITH (fillfactor = 50);

CREATE TABLE replica (
    name       text COLLATE "C" PRIMARY KEY,
    version    text NOT NULL,
    address    text,
    started_at timestamptz NOT NULL,
    heard_at   timestamptz NOT NULL,
    lease      double precision NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE request_budget (
    account    text COLLATE "C" PRIMARY KEY,
    tokens     double precision NOT NULL,
    at         timestamptz NOT NULL,
    held_until timestamptz NOT NULL
) WITH (fillfactor = 50);
