"""Avro schemas from Pub/Sub's schema service."""

import time
from typing import Any

from pipeline.decode.errors import BadFormat, SchemaUnavailable

_TIMEOUT_SECONDS = 60.0  # for one schema, with all retries
_REMEMBERED_SECONDS = 60.0  # how long a refusal is cached


class SchemaService:
    """Fetches schemas by name and revision; a refusal is cached for a minute.

    The worker needs the permission pubsub.schemas.get, which roles/pubsub.viewer includes.
    """

    def __init__(self) -> None:
        self._client: Any = None
        self._refused: dict[tuple[str, str], tuple[float, str]] = {}

    def fetch(self, name: str, revision: str) -> str:
        """Return the text of a schema.

        Raises:
          BadFormat: the schema does not exist, or the worker may not read it.
          SchemaUnavailable: the service did not answer for a minute; the message is to be decoded again later.
        """
        refused_at, reason = self._refused.get((name, revision), (-_REMEMBERED_SECONDS, ""))
        if time.monotonic() - refused_at < _REMEMBERED_SECONDS:
            raise BadFormat(reason)
        # Not imported with the module: Beam's worker has the client, the dashboard's image does not.
        from google.api_core import exceptions, retry  # noqa: PLC0415
        from google.pubsub_v1 import SchemaServiceClient, SchemaView  # noqa: PLC0415

        self._client = self._client or SchemaServiceClient()
        revised = f"{name}@{revision}" if revision else name
        request = {"name": revised, "view": SchemaView.FULL}
        try:
            schema = self._client.get_schema(request=request, retry=retry.Retry(timeout=_TIMEOUT_SECONDS))
        except (exceptions.ClientError, ValueError) as error:
            if isinstance(error, exceptions.TooManyRequests):
                raise SchemaUnavailable(f"schema {revised}: {error}") from error
            reason = f"schema {revised!r} cannot be fetched: {error}"
            self._refused = {(name, revision): (time.monotonic(), reason)}
            raise BadFormat(reason) from None
        except exceptions.GoogleAPIError as error:
            raise SchemaUnavailable(f"schema {revised}: {error}") from error
        return str(schema.definition)
