"""`sql`, `jq`, `duckdb_query` and `python_run`: data."""

from __future__ import annotations

import csv
import io
import json

import pytest

from skill_task import MANIFESTS, Task

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

EXAMPLES = MANIFESTS.parent / "examples"
ORDERS = "region,amount\nnorth,10\nsouth,5\nnorth,7\n"
BY_REGION = "SELECT region, sum(amount + 0) AS total FROM {table} GROUP BY region ORDER BY region"
#: What `BY_REGION` answers on ORDERS.
TOTALS = ["region,total", "north,17", "south,5"]


async def test_sqlite_loads_a_csv_file_and_answers_as_csv(task: Task) -> None:
    await task.put("orders.csv", ORDERS)
    query = BY_REGION.format(table="orders")
    said = await task.good("sql", args=[":memory:", "-cmd", ".import orders.csv orders", query])
    assert said.splitlines() == TOTALS


async def test_sqlite_keeps_a_database_and_reads_json_in_it(task: Task) -> None:
    await task.good("sql", args=["shop.db", "CREATE TABLE t (doc); INSERT INTO t VALUES ('{\"a\": [1, 2, 3]}')"])
    said = await task.good("sql", args=["shop.db", "SELECT sum(value) AS s FROM t, json_each(t.doc, '$.a')"])
    assert said.splitlines() == ["s", "6"]
    assert "no such table" in await task.bad("sql", args=["shop.db", "SELECT * FROM missing"])


async def test_jq_filters_a_file(task: Task) -> None:
    customers = (EXAMPLES / "customers.json").read_text()
    await task.put("customers.json", customers)
    said = await task.good("jq", args=["-r", '.[] | select(.city == "Ghent") | .name', "customers.json"])
    assert said.splitlines() == [found["name"] for found in json.loads(customers) if found["city"] == "Ghent"]
    assert "syntax error" in await task.bad("jq", args=[".[", "customers.json"])


async def test_duckdb_reads_csv_and_json_and_parquet_as_tables(task: Task) -> None:
    await task.put("orders.csv", ORDERS)
    await task.put("people.json", json.dumps([{"name": "Ana", "tags": ["a", "b"]}, {"name": "Bo", "tags": []}]))
    said = await task.good("duckdb_query", sql=BY_REGION.format(table="'orders.csv'"))
    assert said.splitlines() == TOTALS
    await task.good("duckdb_query", sql="COPY (FROM 'orders.csv') TO 'orders.parquet'")
    assert (await task.get("orders.parquet"))[:4] == b"PAR1"
    assert (await task.good("duckdb_query", sql=BY_REGION.format(table="'orders.parquet'"))).splitlines() == TOTALS
    rows = await task.good("duckdb_query", sql="SELECT name, len(tags) AS n FROM 'people.json'", format="json")
    assert json.loads(rows) == [{"name": "Ana", "n": 2}, {"name": "Bo", "n": 0}]


async def test_duckdb_keeps_a_database_and_opens_it_for_reading_alone(task: Task) -> None:
    await task.good("duckdb_query", sql="CREATE TABLE t AS SELECT 42 AS x", database="shop.duckdb")
    said = await task.good("duckdb_query", sql="FROM t", database="shop.duckdb", format="markdown", read_only=True)
    assert "| 42 |" in said
    assert "read-only" in await task.bad("duckdb_query", sql="DROP TABLE t", database="shop.duckdb", read_only=True)


async def test_duckdb_refuses_to_read_only_where_there_is_no_database(task: Task) -> None:
    assert "read-only" in await task.bad("duckdb_query", sql="SELECT 1", read_only=True)


async def test_duckdbs_first_error_ends_the_run_and_is_told(task: Task) -> None:
    result = await task.run("duckdb_query", sql="SELECT nonsense; SELECT 'after' AS word;")
    assert result.exit_code == 1
    assert "nonsense" in result.stderr
    assert "after" not in result.stdout


async def test_a_script_runs_with_its_arguments_and_the_promised_packages(task: Task) -> None:
    await task.put("orders.csv", ORDERS)
    await task.put("mine.py", "FACTOR = 2\n")
    code = """
import sys, bs4, lxml, numpy, openpyxl, PIL.Image, yaml
import pandas as pd
from mine import FACTOR

frame = pd.read_csv(sys.argv[1])
frame.to_excel("orders.xlsx", index=False)
PIL.Image.new("RGB", (3, 2)).save("dot.png")
print(pd.read_excel("orders.xlsx").amount.sum() * FACTOR, sys.argv[2:])
"""
    assert await task.good("python_run", code=code, args=["orders.csv", "-x"]) == "44 ['-x']\n"
    assert await task.files() == ["dot.png", "mine.py", "orders.csv", "orders.xlsx"]


async def test_a_scripts_exception_is_a_failure_with_what_was_printed_before(task: Task) -> None:
    result = await task.run("python_run", code="print('so far')\nraise ValueError('näh')")
    assert (result.exit_code, result.stdout) == (1, "so far\n")
    assert result.stderr.endswith("ValueError: näh\n")


async def test_the_examples_totals_are_the_same_in_every_language(task: Task) -> None:
    text = (EXAMPLES / "orders.csv").read_text()
    await task.put("orders.csv", text)
    total = sum(float(row["amount"]) for row in csv.DictReader(io.StringIO(text)))
    said = [
        await task.good("sql", args=[":memory:", "-cmd", ".import orders.csv o", "SELECT sum(amount + 0) AS t FROM o"]),
        await task.good("duckdb_query", sql="SELECT sum(amount) AS t FROM 'orders.csv'"),
        await task.good("python_run", code="import pandas as p\nprint('t', p.read_csv('orders.csv').amount.sum())"),
    ]
    assert [float(answer.split()[-1]) for answer in said] == pytest.approx([total] * 3)
