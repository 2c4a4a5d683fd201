"""Turns conversations into packed rows: whole conversations side by side, almost no padding.

Positions start anew at each conversation; transformers reads that as the border that attention
must not cross. Only the assistant's tokens carry a loss.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from demo.text import Conversation
from demo.tokenizer import END, START

IGNORED = -100
OPEN_ROWS = 12  # More are packed tighter, but mix their lengths less.


@dataclass
class Batch:
    """Three tensors of (rows, row_tokens); a label is the token after its position."""

    tokens: Tensor
    labels: Tensor
    positions: Tensor


def encode(
    tokenizer: PreTrainedTokenizerFast, conversations: list[Conversation]
) -> list[list[int]]:
    """The ids of each conversation exactly as the chat template renders it."""
    messages = [talk.messages for talk in conversations]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    return [list(ids) for ids in tokenizer(rendered, add_special_tokens=False)["input_ids"]]


def labels_of(ids: list[int], opening: list[int], end: int) -> list[int]:
    """Next-token labels, kept only from the assistant's opening to its `<|im_end|>`."""
    labels, speaking = [IGNORED] * len(ids), False
    for index in range(len(opening) - 1, len(ids) - 1):
        if ids[index - len(opening) + 1 : index + 1] == opening:
            speaking = True
        if speaking:
            labels[index] = ids[index + 1]
            speaking = ids[index + 1] != end
    return labels


def packed_rows(encoded: list[list[int]], row_tokens: int) -> Iterator[list[list[int]]]:
    """Groups of conversations that fit a row; one too long for any row is left out."""
    open_rows: list[list[list[int]]] = [[] for _ in range(OPEN_ROWS)]
    spare = [row_tokens] * OPEN_ROWS
    for ids in encoded:
        if len(ids) > row_tokens:
            continue
        fitting = [row for row in range(OPEN_ROWS) if spare[row] >= len(ids)]
        if not fitting:
            fullest = min(range(OPEN_ROWS), key=spare.__getitem__)
            yield open_rows[fullest]
            open_rows[fullest], spare[fullest] = [], row_tokens
            fitting = [fullest]
        chosen = min(fitting, key=spare.__getitem__)
        open_rows[chosen].append(ids)
        spare[chosen] -= len(ids)


class Packer:
    """Makes the batches of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, batch_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.pad: int = tokenizer.convert_tokens_to_ids(tokenizer.pad_token)
        self.end: int = tokenizer.convert_tokens_to_ids(END)
        self.opening: list[int] = tokenizer.encode(START + "assistant\n", add_special_tokens=False)

    def batches(self, conversations: list[Conversation], row_tokens: int) -> list[Batch]:
        rows = list(packed_rows(encode(self.tokenizer, conversations), row_tokens))
        num_rows = self.batch_tokens // row_tokens
        starts = range(0, len(rows) - num_rows + 1, num_rows)
        return [self.batch(rows[start : start + num_rows], row_tokens) for start in starts]

    def batch(self, rows: list[list[list[int]]], row_tokens: int) -> Batch:
        columns: list[list[list[int]]] = [[], [], []]
        for row in rows:
            spare = row_tokens - sum(map(len, row))
            labels = [label for ids in row for label in labels_of(ids, self.opening, self.end)]
            columns[0].append([token for ids in row for token in ids] + [self.pad] * spare)
            columns[1].append(labels + [IGNORED] * spare)
            places = [place for ids in row for place in range(len(ids))]
            columns[2].append(places + list(range(spare)))
        return Batch(*(torch.tensor(column) for column in columns))


def shuffled(batches: list[Batch], rng: Random) -> list[Batch]:
    return rng.sample(batches, len(batches))
