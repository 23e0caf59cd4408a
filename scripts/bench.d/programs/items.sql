-- 200,000 rows in memory, an index, a scan and a grouped query: a database's small, short-lived blocks.
PRAGMA temp_store = MEMORY;
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, value REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
INSERT INTO item SELECT i, printf('name %d', i * 7919 % 100003), i * 0.5 FROM n;
CREATE INDEX by_name ON item(name);
SELECT count(*), sum(value) FROM item WHERE name LIKE 'name 1%';
SELECT name, max(value) AS top FROM item GROUP BY name ORDER BY top DESC LIMIT 5;
