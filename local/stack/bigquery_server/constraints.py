"""The part of BigQuery's REST interface that the emulator lacks: `tableConstraints`, and PRIMARY KEY in SQL."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import sqlglot
from sqlglot import exp
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from local.stack.bigquery_server.emulator_tables import EmulatorTables

KEY_COLUMNS = 16  # https://cloud.google.com/bigquery/docs/primary-foreign-keys

_PATH = re.compile(r"/bigquery/v2/projects/([^/]+)/(?:(?:queries|jobs)|datasets/([^/]+)(?:/(tables)(?:/([^/]+))?)?)/?")


class Constraints:
    """Middleware in front of the emulator: passes everything on, and adds what it has been told of primary keys."""

    def __init__(self, tables: EmulatorTables) -> None:
        self._tables = tables

    async def __call__(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Answer a request."""
        match = _PATH.fullmatch(request.url.path)
        if not match:
            return await call_next(request)
        project, dataset, tables, table = match.groups()
        if tables:
            return await self._about_table(request, call_next, f"{project}.{dataset}", table)
        if request.method == "POST" and not dataset:
            return await self._about_query(request, call_next, project)
        response = await call_next(request)
        if request.method == "DELETE" and response.status_code < 300:
            self._tables.forget(f"{project}.{dataset}")
        return response

    async def _about_table(self, request: Request, call_next: Any, dataset: str, table: str | None) -> Response:
        asked = await request.json() if request.method in ("POST", "PATCH", "PUT") else {}
        if wrong := _wrong(asked):
            error = {"code": 400, "message": wrong, "errors": [{"reason": "invalid", "message": wrong}]}
            return JSONResponse({"error": error}, 400)
        response = await call_next(request)
        table = table or asked.get("tableReference", {}).get("tableId")
        if response.status_code >= 300 or not table:
            return response
        name = f"{dataset}.{table}"
        if request.method == "DELETE":
            self._tables.forget(name)
            return response
        if "tableConstraints" in asked or request.method == "PUT":
            self._tables.declare(name, asked.get("tableConstraints"))
        declared = self._tables.constraints(name)
        if not declared:
            return response
        return await _with(response, {"tableConstraints": declared})

    async def _about_query(self, request: Request, call_next: Any, project: str) -> Response:
        asked = await request.json()
        sql = asked.get("query") or asked.get("configuration", {}).get("query", {}).get("query", "")
        response = await call_next(request)
        if response.status_code < 300 and re.search(r"PRIMARY\s+KEY|DROP\s+TABLE", sql, re.IGNORECASE):
            self._note(sql, project)
        return response

    def _note(self, sql: str, project: str) -> None:
        """Note what a statement that went well does to primary keys."""
        for statement in sqlglot.parse(sql, read="bigquery"):
            table = statement.find(exp.Table) if statement else None
            if not statement or not table:
                continue
            name = f"{table.catalog or project}.{table.db}.{table.name}"
            if isinstance(statement, exp.Drop):
                self._tables.forget(name)
            elif key := statement.find(exp.PrimaryKey):
                self._tables.declare(name, {"primaryKey": {"columns": [column.name for column in key.expressions]}})
            elif isinstance(statement, exp.Alter):
                self._tables.declare(name, None)


def _wrong(table: dict[str, Any]) -> str | None:
    """Say what is wrong with the primary key of a table resource, None if nothing is."""
    key = ((table.get("tableConstraints") or {}).get("primaryKey") or {}).get("columns", [])
    have = {field["name"] for field in table.get("schema", {}).get("fields", [])}
    if len(key) > KEY_COLUMNS:
        return f"A primary key may have {KEY_COLUMNS} columns, not {len(key)}"
    if have and (unknown := set(key) - have):
        return f"Primary key column is not in the schema: {', '.join(sorted(unknown))}"
    return None


async def _with(response: Any, more: dict[str, Any]) -> Response:
    """The JSON response with more in it."""
    body = b"".join([part async for part in response.body_iterator])
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return JSONResponse({**json.loads(body), **more}, response.status_code, headers)
