"""Trains the demo's tokenizer: byte-level BPE with the chat template that it is trained under.

A space is always a token of its own, so a word is the same tokens wherever it stands: copying it
out of `Repeat: banana` then needs no change of spelling. Digits never merge.
"""

from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from demo.text import Conversation, training_text

PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
PIECES = r"\p{N}|, |\p{L}+|\s|[^\s\p{L}\p{N}]+"
TEMPLATE = Path(__file__).parent / "chat_template.jinja"
MAX_POSITIONS = 2048


def is_plain(conversation: Conversation) -> bool:
    """Random scripts and codes would only teach merges that never come back."""
    return all(message["content"].isascii() for message in conversation.messages)


def corpus(seed: int, num_conversations: int = 12_000) -> list[str]:
    drawn = filter(is_plain, training_text(Random(seed), num_conversations))
    roles = ["user\n", "assistant\n", "system\n", "tool\n", "worksheet\n"] * num_conversations
    return roles + [message["content"] for talk in drawn for message in talk.messages]


def train_tokenizer(seed: int, vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed), trainer)
    return with_chat_template(tokenizer)


def with_chat_template(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """BOS is the start of a message, which the template writes: nothing ever adds a second one."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.chat_template = TEMPLATE.read_text()
    return fast
