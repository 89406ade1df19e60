"""The operator's tokenizer.json: the only place that imports the tokenizers library."""

from collections.abc import Callable
from pathlib import Path

from headgate.config import ConfigError


def load_tokenizer(path: str) -> Callable[[str], int] | None:
    """Return the tokens of a text by a tokenizer.json; None for no path, ConfigError when it is of no use.

    The library is an extra and takes its time to import, so nobody else pays for it.
    """
    if not path:
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ConfigError(
            "`tokenizer` is set, but the library for it is not installed:"
            " pip install 'headgate[tokenizers]'."
        ) from None
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError, RuntimeError) as error:
        stated = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"`tokenizer` names the file {path}: {stated}.") from None
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception:  # the library raises nothing narrower
        raise ConfigError(f"`tokenizer` names the file {path}: not a tokenizer.json.") from None

    def count(text: str) -> int:
        # A batch, as the library lets other threads run only then.
        return len(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    return count
