"""No password leaves the process in a text."""

import time

import pytest

from segda.masking import masked, masked_plain, reason


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://a:b@h/p", "http://***@h/p"),
        ("postgresql+psycopg2://me:secret@db:5432/x", "postgresql+psycopg2://***@db:5432/x"),
        # Whatever characters a password has.
        ("postgresql://me:p@ss@db/x", "postgresql://***@db/x"),
        ("postgresql://me:pa/ss@db/x", "postgresql://***@db/x"),
        ("postgresql://me:pa#ss@db/x", "postgresql://***@db/x"),
        ("postgresql://me:p?s:s@db/x", "postgresql://***@db/x"),
        ("postgresql://me:123/4@db/x", "postgresql://***@db/x"),
        ("postgresql://me:pa ss@db/x", "postgresql://***@db/x"),
        ("postgresql://me:p'a\"s@db/x", "postgresql://***@db/x"),
        ("postgresql://:only@db/x", "postgresql://***@db/x"),
        ("https://token@host/x", "https://***@host/x"),
        ("s3://KEY:se/cr+et/=@bucket/path", "s3://***@bucket/path"),
        ("simplecache::s3://KEY:secret@bucket/path", "simplecache::s3://***@bucket/path"),
        # In what follows the address.
        ("http://h/x?password=abc", "http://h/x?password=***"),
        ("http://h/x?page=2&token=ab%20c&n=1", "http://h/x?page=2&token=***&n=1"),
        ("http://h/x?password=a/b#c:d", "http://h/x?password=***"),
        ("postgresql://db/x?user=me&sslpassword=q", "postgresql://db/x?user=me&sslpassword=***"),
        ("https://h/y?sig=abc&X-Amz-Signature=def", "https://h/y?sig=***&X-Amz-Signature=***"),
        ("abfs://c?account_key=abc==", "abfs://c?account_key=***"),
        ("http://h/x?key=abc&auth=de;token=f", "http://h/x?key=***&auth=***"),
        ("http://h/x?to=http%3A%2F%2Fme%3Apw%40k%2Fy", "http://h/x?to=http%3A%2F%2F***%40k%2Fy"),
        ("mssql:///?odbc_connect=UID%3Dme%3BPWD%3Dabc", "mssql:///?odbc_connect=UID%3Dme%3BPWD%3D***"),
        # In other texts.
        ("cannot reach 'postgresql://me:secret@db/x': refused", "cannot reach 'postgresql://***@db/x': refused"),
        ("failed at http://me:se'cret@db/x", "failed at http://***@db/x"),
        ("first http://a:b@h, then http://c:d@k.", "first http://***@h, then http://***@k."),
        ("host=db password=abc user=me", "host=db password=*** user=me"),
        ("MLFLOW_TRACKING_PASSWORD=abc sweeps run", "MLFLOW_TRACKING_PASSWORD=*** sweeps run"),
        ("AWS_SECRET_ACCESS_KEY='a b' run", "AWS_SECRET_ACCESS_KEY='***' run"),
        ('{"api_key": "abc"}', '{"api_key": "***"}'),
        ('"{\\"api_key\\": \\"abc\\"}"', '"{\\"api_key\\": \\"***\\"}"'),
        ("DB_PASS: !!str abc", "DB_PASS: !!str ***"),
        ("password: >-\n  abc\nuser: me", "password: >-\n  ***\nuser: me"),
        ("cut off at password='abc", "cut off at password=***"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
        ("sent Bearer abc.def", "sent Bearer ***"),
        ("notify --token abc done", "notify --token *** done"),
        ("curl -u me:pw http://h", "curl -u me:*** http://h"),
        ("curl -H 'Authorization: Bearer abc.def' http://h", "curl -H 'Authorization: Bearer ***' http://h"),
    ],
)
def test_passwords_tokens_and_keys_are_hidden(text, shown):
    assert masked(text) == shown
    assert masked(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////runs/mlflow.db",
        "sqlite:////home/me@work/a:b/mlflow.db",
        "http://h:5000/#/experiments/1?orderBy=miou",
        "http://[::1]:5000/x",
        "s3://bucket/folder@v2",
        "me@example.com asked for source/val/miou >= 0.5",
        'FATAL: password authentication failed for user "me"',
        "num_tokens=4, tokenizer: bert, config=x",
        "module:name, 12:30, a@b",
        "",
    ],
)
def test_what_is_no_secret_stays(text):
    assert masked(text) == text


def test_plain_data_is_masked_in_depth_and_other_values_stay():
    plain = {
        "tracking": {"uri": "http://me:secret@host", "experiment": "e"},
        "storage": "s3://k:s@bucket",
        "list": ["http://a:b@h", 3, None, 0.5, True],
        "method": {"token": "abc", "num_tokens": 3, "secret": ""},
        "keys": {"password": 1234, "credentials": {"user": "me", "word": "abc"}, "tokens": ["password=abc"]},
    }
    assert masked_plain(plain) == {
        "tracking": {"uri": "http://***@host", "experiment": "e"},
        "storage": "s3://***@bucket",
        "list": ["http://***@h", 3, None, 0.5, True],
        "method": {"token": "***", "num_tokens": 3, "secret": ""},
        "keys": {"password": "***", "credentials": "***", "tokens": ["password=***"]},
    }


@pytest.mark.parametrize("text", ["a.", "password", "pass_", "://a:", "%3a%2f%2f", "token=", '\\"', "-u a"])
def test_long_texts_are_masked_in_no_time(text):
    began = time.perf_counter()
    masked(text * (10_000 // len(text)))
    assert time.perf_counter() - began < 2


def test_a_reason_is_one_line_without_passwords_and_never_empty():
    assert reason(ValueError("no\n answer from http://me:secret@h")) == "no answer from http://***@h"
    assert reason(TimeoutError()) == "TimeoutError"
