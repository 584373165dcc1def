"""Base of the coders of elements and state: MessagePack, under URNs of this project.

Beam pickles a coder that has no URN into the pipeline, with the path of its module: moving the class would then change
the pipeline, and a running job could not be updated. A URN stays, whatever the class is called and wherever it is.
"""

from typing import Any, ClassVar

import msgspec
from apache_beam import coders
from apache_beam.utils.plugin import BeamPlugin

_encode = msgspec.msgpack.Encoder().encode


class MessagePackCoder(coders.Coder, BeamPlugin):
    """Encodes values of one type, most often a `msgspec.Struct`, as MessagePack.

    Beam chooses the subclass for values of that type. Fields may be added at the end, with a default: earlier versions'
    values are then read with it. A worker imports the modules of all subclasses before it reads a pipeline, because
    they are plugins.
    """

    _URN: ClassVar[str]
    _VALUE_TYPE: ClassVar[Any]
    _decoder: ClassVar[msgspec.msgpack.Decoder[Any]]

    def __init_subclass__(cls, urn: str, value_type: Any, wire_type: Any = None) -> None:
        """Register the subclass.

        Args:
          urn: names the coder in pipelines.
          value_type: the type of the values that it encodes and returns.
          wire_type: the type that msgspec decodes, by default `value_type`; the subclass converts its values.
        """
        super().__init_subclass__()
        cls._URN, cls._VALUE_TYPE = urn, value_type
        cls._decoder = msgspec.msgpack.Decoder(wire_type or value_type)
        cls.register_urn(urn, None, lambda payload, components, context: cls())
        coders.registry.register_coder(value_type, cls)

    def encode(self, value: Any) -> bytes:
        """Return the value as MessagePack."""
        return _encode(value)

    def decode(self, encoded: bytes) -> Any:
        """Return a value equal to the encoded one and of the same types.

        Raises:
          msgspec.DecodeError: the bytes are not MessagePack, or of another type.
        """
        return self._decoder.decode(encoded)

    def to_type_hint(self) -> Any:
        """Return the type of the values."""
        return self._VALUE_TYPE

    def to_runner_api_parameter(self, context: Any) -> tuple[str, None, tuple[()]]:
        """Return how a pipeline refers to this coder: by its URN alone, without payload or component coders."""
        return self._URN, None, ()

    def __str__(self) -> str:
        return self._URN

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(self._URN)
