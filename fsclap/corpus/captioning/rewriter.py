"""Captions in a language model's words, through any OpenAI-compatible `/chat/completions` endpoint.

A rewritten caption reads better and is no longer bound to its style: two styles may come out in one
wording. The style itself stays as it was measured.
"""

import http.client
import json
import os
from typing import Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pydantic import BaseModel, ConfigDict, Field

from fsclap.settings import execution

INSTRUCTIONS = (
    "You reword descriptions of how a line is spoken. Say the same in other natural English words, in at most "
    "{max_words} words on one line. Keep every property that is mentioned and how strong it is. Add nothing: no "
    "emotion, age, gender, content or cause that is not there. Answer with the description alone."
)


class RewriterSettings(BaseModel):
    """Which model rewrites captions, and what to do when it fails."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(
        pattern=r"^https?://", description="Base URL of the API, without /chat/completions: http://localhost:8000/v1"
    )
    model: str = Field(min_length=1, description="Name of the model at the endpoint; stored as the caption's source.")
    api_key_env: str | None = execution(
        None, description="Environment variable that holds the API key. None: no key is sent."
    )
    timeout: float = execution(60.0, gt=0, description="Seconds to wait for one answer.")
    concurrency: int = execution(8, ge=1, le=64, description="Concurrent requests.")
    max_words: int = Field(60, ge=10, description="Longer answers are rejected.")
    on_error: Literal["raise", "keep"] = execution(
        "raise",
        description="raise: fail, so that the task is retried. keep: log the error and keep the grammar's caption; "
        "caption_source then says so.",
    )


class RewriteError(RuntimeError):
    """The endpoint failed, or its answer is not one short line."""


def rewrite(caption: str, settings: RewriterSettings) -> str:
    """Say a caption in other words.

    Raises:
        RewriteError: Says which endpoint and model, and what came back.
    """
    where = f"{settings.model} at {settings.base_url}"
    try:
        with urlopen(_request(caption, settings), timeout=settings.timeout) as response:
            answer = json.load(response)
    except HTTPError as error:
        detail = error.read(500).decode("utf-8", errors="replace")
        raise RewriteError(f"{where} answered {error.code} {error.reason}: {detail}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RewriteError(f"{where} gave no JSON answer: {error}") from error
    try:
        text = answer["choices"][0]["message"]["content"].strip()
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RewriteError(f"{where} answered without choices[0].message.content: {answer!r:.300}") from error
    return _checked(text, settings, where)


def _request(caption: str, settings: RewriterSettings) -> Request:
    body = {
        "model": settings.model,
        "temperature": 0,
        "messages": [
            {"role": "system", "content": INSTRUCTIONS.format(max_words=settings.max_words)},
            {"role": "user", "content": caption},
        ],
    }
    headers = {"Content-Type": "application/json"}
    if settings.api_key_env is not None:
        key = os.environ.get(settings.api_key_env)
        if not key:
            raise RewriteError(f"the environment variable {settings.api_key_env} (api_key_env) holds no API key")
        headers["Authorization"] = f"Bearer {key}"
    url = f"{settings.base_url.rstrip('/')}/chat/completions"
    return Request(url, data=json.dumps(body).encode(), headers=headers)


def _checked(text: str, settings: RewriterSettings, where: str) -> str:
    words = len(text.split())
    if words == 0:
        raise RewriteError(f"{where} answered with an empty caption")
    if len(text.splitlines()) > 1:
        raise RewriteError(f"{where} answered with more than one line: {text!r:.200}")
    if words > settings.max_words:
        raise RewriteError(f"{where} answered with {words} words; max_words is {settings.max_words}: {text!r:.200}")
    return text
