-- Keys as version 1 of the table had them. {at} is a time: 2031-02-03T04:05:06.000789Z.
INSERT INTO admit_keys (digest, id, owner, plan, scopes, meta, not_before, expires_at, revoked_at, created_at, last_used_at, version) VALUES
  ({full}, 'full', 'ACME ☃ ''x''', 'pro', '["orders:read", "a\"b"]', '{"hint": "acme_1..."}', {at}, {at}, {at}, {at}, {at}, 7);
INSERT INTO admit_keys (digest, id) VALUES ({bare}, 'bare');
