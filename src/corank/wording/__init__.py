"""What corank says to people, in their language: the English text is the key, as in gettext."""

from corank.wording.catalogue import LANGUAGES, Part, language, mark, named, parts, say, speaking

__all__ = ["LANGUAGES", "Part", "language", "mark", "named", "parts", "say", "speaking"]
