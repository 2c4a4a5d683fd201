"""Turns conversations into packed rows: whole conversations side by side, almost no padding.

Positions start anew at each conversation; transformers reads that as the border that attention
must not cross. Only the assistant's tokens carry a loss, and the results on a worksheet of sums. A
long answer weighs more than a short one, but less than in proportion: otherwise counting to sixty
would drown a hundred sums.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from demo.text import WORKSHEET, Conversation
from demo.tokenizer import END, START

IGNORED = -100
END_WEIGHT = 0.5
OPEN_ROWS = 12  # More are packed tighter, but mix their lengths less.


@dataclass
class Batch:
    """Tensors of (rows, row_tokens); a label is the token after its position."""

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Sample:
    """One conversation as ids, with the label that each of them should predict."""

    ids: list[int]
    labels: list[int]


def encode(
    tokenizer: PreTrainedTokenizerFast, conversations: list[Conversation]
) -> list[list[int]]:
    """The ids of each conversation exactly as the chat template renders it."""
    messages = [talk.messages for talk in conversations]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    return [list(ids) for ids in tokenizer(rendered, add_special_tokens=False)["input_ids"]]


def labels_of(ids: list[int], opening: list[int], end: int) -> list[int]:
    """Next-token labels, kept only from each opening to the end token after it."""
    labels, speaking = [IGNORED] * len(ids), False
    for index in range(len(opening) - 1, len(ids) - 1):
        if ids[index - len(opening) + 1 : index + 1] == opening:
            speaking = True
        if speaking:
            labels[index] = ids[index + 1]
            speaking = ids[index + 1] != end
    return labels


def weights_of(labels: list[int]) -> list[float]:
    """One over the square root of the answer's length; where it ends always weighs as much."""
    weights: list[float] = []
    for ignored, run in groupby(labels, key=lambda label: label == IGNORED):
        length = len(list(run))
        weights += [0.0 if ignored else length**-0.5] * length
        weights[-1] = 0.0 if ignored else END_WEIGHT
    return weights


def packed_rows(samples: list[Sample], row_tokens: int) -> Iterator[list[Sample]]:
    """Groups of samples that fit a row; one too long for any row is left out."""
    open_rows: list[list[Sample]] = [[] for _ in range(OPEN_ROWS)]
    spare = [row_tokens] * OPEN_ROWS
    for sample in samples:
        length = len(sample.ids)
        if length > row_tokens:
            continue
        fitting = [row for row in range(OPEN_ROWS) if spare[row] >= length]
        if not fitting:
            fullest = min(range(OPEN_ROWS), key=spare.__getitem__)
            yield open_rows[fullest]
            open_rows[fullest], spare[fullest] = [], row_tokens
            fitting = [fullest]
        chosen = min(fitting, key=spare.__getitem__)
        open_rows[chosen].append(sample)
        spare[chosen] -= length


class Packer:
    """Makes the batches of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, batch_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.pad: int = tokenizer.convert_tokens_to_ids(tokenizer.pad_token)
        self.answer = (self.ids(START + "assistant\n"), self.ids(END)[0])
        self.result = (self.ids("= "), self.ids("\n")[0])

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def samples(self, conversations: list[Conversation]) -> list[Sample]:
        encoded = encode(self.tokenizer, conversations)
        spans = [self.result if talk.task == WORKSHEET else self.answer for talk in conversations]
        return [
            Sample(ids, labels_of(ids, *span)) for ids, span in zip(encoded, spans, strict=True)
        ]

    def batches(self, conversations: list[Conversation], row_tokens: int) -> list[Batch]:
        rows = list(packed_rows(self.samples(conversations), row_tokens))
        num_rows = self.batch_tokens // row_tokens
        starts = range(0, len(rows) - num_rows + 1, num_rows)
        return [self.batch(rows[start : start + num_rows], row_tokens) for start in starts]

    def batch(self, rows: list[list[Sample]], row_tokens: int) -> Batch:
        spare = [row_tokens - sum(len(sample.ids) for sample in row) for row in rows]
        tokens = [[token for sample in row for token in sample.ids] for row in rows]
        labels = [[label for sample in row for label in sample.labels] for row in rows]
        places = [[place for sample in row for place in range(len(sample.ids))] for row in rows]
        for row, unused in enumerate(spare):
            tokens[row] += [self.pad] * unused
            labels[row] += [IGNORED] * unused
            places[row] += range(unused)
        weights = [weights_of(row) for row in labels]
        return Batch(*(torch.tensor(column) for column in (tokens, labels, places, weights)))


def shuffled(batches: list[Batch], rng: Random) -> list[Batch]:
    return rng.sample(batches, len(batches))
