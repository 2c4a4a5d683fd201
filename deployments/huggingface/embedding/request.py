"""What a client may ask of an embedder, read strictly, and what it comes to."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from deployments.errors import ContextTooLong, InvalidRequest
from deployments.huggingface.embedding.encoder import TokenIds
from deployments.huggingface.engine.vocabulary import Vocabulary
from deployments.huggingface.protocol.request import MAX_PROMPTS, as_prompts, parse
from deployments.huggingface.protocol.strict import Ignored, Strict


class EmbeddingRequest(Strict):
    """The body of /v1/embeddings."""

    model: str | None = None
    input: Annotated[list[Any], BeforeValidator(as_prompts)] = Field(max_length=MAX_PROMPTS)
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    user: Ignored = None


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """An embedder as requests see it. `size` is that of its vectors."""

    vocabulary: Vocabulary
    size: int
    max_model_len: int
    vocab_size: int
    prompt: str = ""
    normalizes: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is ready to run; `dimensions` of each vector are wanted."""

    inputs: tuple[TokenIds, ...]
    dimensions: int
    as_base64: bool

    @property
    def num_tokens(self) -> int:
        """The tokens of all inputs."""
        return sum(map(len, self.inputs))


def prepare(body: bytes, model: EmbeddingModel) -> Prepared:
    """Reads, checks and tokenizes a request. Raises: InvalidRequest, ContextTooLong."""
    request = parse(EmbeddingRequest, body)
    if request.dimensions is not None and request.dimensions > model.size:
        raise InvalidRequest(
            f"Invalid 'dimensions': this model's embeddings have {model.size}.", param="dimensions"
        )
    inputs = tuple(_ids(text, n, model) for n, text in enumerate(request.input))
    dimensions = request.dimensions or model.size
    return Prepared(inputs, dimensions, request.encoding_format == "base64")


def _ids(text: str | list[int], number: int, model: EmbeddingModel) -> TokenIds:
    if text == "":
        raise InvalidRequest("Invalid 'input': it must not be an empty string.", param="input")
    if isinstance(text, str):
        ids = model.vocabulary.encode(model.prompt + text, add_special_tokens=True)
    else:
        ids = tuple(text)
    if not ids or min(ids) < 0 or max(ids) >= model.vocab_size:
        raise InvalidRequest(
            f"Invalid 'input': token ids must be from 0 to {model.vocab_size - 1}.", param="input"
        )
    if len(ids) > model.max_model_len:
        raise ContextTooLong(
            f"This model's maximum context length is {model.max_model_len} tokens. However, input "
            f"{number} has {len(ids)}. Please shorten it.",
            param="input",
        )
    return ids
