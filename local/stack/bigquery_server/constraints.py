"""Primary keys, which the emulator lacks: `tableConstraints` of the REST interface, and PRIMARY KEY in SQL."""

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
    """Middleware in front of the emulator that records primary keys and adds them to responses."""

    def __init__(self, tables: EmulatorTables) -> None:
        self._tables = tables

    async def __call__(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Pass a request on, and handle the primary keys in it."""
        match = _PATH.fullmatch(request.url.path)
        if not match:
            return await call_next(request)
        project, dataset, tables, table = match.groups()
        if tables:
            return await self._handle_table(request, call_next, f"{project}.{dataset}", table)
        if request.method == "POST" and not dataset:
            return await self._handle_query(request, call_next, project)
        response = await call_next(request)
        if request.method == "DELETE" and response.status_code < 300:
            self._tables.forget(f"{project}.{dataset}")
        return response

    async def _handle_table(self, request: Request, call_next: Any, dataset: str, table: str | None) -> Response:
        resource = await request.json() if request.method in ("POST", "PATCH", "PUT") else {}
        if problem := _key_problem(resource):
            error = {"code": 400, "message": problem, "errors": [{"reason": "invalid", "message": problem}]}
            return JSONResponse({"error": error}, 400)
        response = await call_next(request)
        table = table or resource.get("tableReference", {}).get("tableId")
        if response.status_code >= 300 or not table:
            return response
        name = f"{dataset}.{table}"
        if request.method == "DELETE":
            self._tables.forget(name)
            return response
        if "tableConstraints" in resource or request.method == "PUT":
            self._tables.declare(name, resource.get("tableConstraints"))
        declared = self._tables.constraints(name)
        if not declared:
            return response
        return await _extended(response, {"tableConstraints": declared})

    async def _handle_query(self, request: Request, call_next: Any, project: str) -> Response:
        job = await request.json()
        sql = job.get("query") or job.get("configuration", {}).get("query", {}).get("query", "")
        response = await call_next(request)
        if response.status_code < 300 and re.search(r"PRIMARY\s+KEY|DROP\s+TABLE", sql, re.IGNORECASE):
            self._apply_sql(sql, project)
        return response

    def _apply_sql(self, sql: str, project: str) -> None:
        """Record how successful statements change primary keys."""
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


def _key_problem(table: dict[str, Any]) -> str | None:
    """Return what is wrong with the primary key of a table resource, or None."""
    key = ((table.get("tableConstraints") or {}).get("primaryKey") or {}).get("columns", [])
    columns = {field["name"] for field in table.get("schema", {}).get("fields", [])}
    if len(key) > KEY_COLUMNS:
        return f"A primary key may have {KEY_COLUMNS} columns, not {len(key)}"
    if columns and (unknown := set(key) - columns):
        return f"Primary key column is not in the schema: {', '.join(sorted(unknown))}"
    return None


async def _extended(response: Any, fields: dict[str, Any]) -> Response:
    """Return the JSON response with these fields added."""
    body = b"".join([part async for part in response.body_iterator])
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return JSONResponse({**json.loads(body), **fields}, response.status_code, headers)
