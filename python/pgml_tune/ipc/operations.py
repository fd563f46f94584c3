"""What can be asked of the worker that serves models, by name."""

from __future__ import annotations

EMBED, CLASSIFY, SKETCH = "embed", "classify", "sketch"
COUNT, LONGEST, SPANS = "count_tokens", "longest_text", "spans"
GENERATE, COUNT_PROMPT = "generate", "count_prompt"
LOAD, STATUS = "load", "status"
