"""Payloads that must not become events, each with the reason (its label) that it must be given.

`ANY` accepts whatever reason: the point is then only that it is a dead letter with one.
"""

import json
from collections.abc import Iterator

ANY = ""
DEEP = 10_000


def payloads() -> Iterator[tuple[bytes, str]]:
    """Hostile bytes and the reason expected."""
    yield from not_json()
    yield from not_an_event()
    yield from wrong_numbers()
    yield from wrong_names()
    yield from literals()
    yield b"x" * 5_000_000, "too_large"
    yield b'{"experiment_id":"good","a":"' + b"x" * 5_000_000 + b'"}', "too_large"


def event(**fields: object) -> bytes:
    return json.dumps({"experiment_id": "good", **fields}).encode()


def raw(body: str) -> bytes:
    """An event of the good experiment with this text among its fields."""
    return b'{"experiment_id":"good",' + body.encode("utf-8", "surrogatepass") + b"}"


def not_json() -> Iterator[tuple[bytes, str]]:
    texts = [b"", b" ", b"\x00", b"\x00" * 1000, b"not json", b"{", b"}", b'{"', b'{"experiment_id"', b"{]", b"[", b"]",
             b'{"experiment_id":"good","event":"x"', b'{"experiment_id":"good","event":"x"}}', b"nul", b"tru", b"NaN1",
             b'{"experiment_id":"good","event":"x"} trailing', b"{'experiment_id':", b"\xff\xfe\xfd", b"\xc3\x28",
             b'{"experiment_id":"good","event":"\xff"}', b'{"experiment_id":"\xed\xa0\x80","event":"x"}', b"//",
             b'\xef\xbb\xbf{"experiment_id":"good","event":"x"}', b"<xml/>", b"experiment_id=good&event=x", b"--1",
             '{"experiment_id":"good","event":"x"}'.encode("utf-16"), b"PING\r\n", b"*1\r\n$4\r\nPING\r\n",
             b'{"experiment_id":"good","x":01}', b'{experiment_id:"good","x":1}', b"\x80\x04."]  # fmt: skip
    for text in texts:
        yield text, "not_json"
    yield b"[" * DEEP + b"]" * DEEP, "not_json"
    yield raw('"x":' + "[" * DEEP + "]" * DEEP), "not_json"
    yield raw('"x":' + '{"a":' * DEEP + "1" + "}" * DEEP), "not_json"
    yield raw('"x":' + "9" * 5000), "not_json"
    yield raw('"event":"a\x01b"'), ANY  # pydantic's parser lets bare control characters pass
    yield raw('"event":"a\nb"'), ANY


def not_an_event() -> Iterator[tuple[bytes, str]]:
    for text in (b"null", b"true", b"5", b'"good"', b"[]", b"[{}]", b'[{"experiment_id":"good","event":"x"}]', b"1e5"):
        yield text, "not_object"
    for text in (b"{}", b'{"experiment_id":null}', b'{"event":"x"}', b'{"Experiment_ID":"good"}', b'{"":"good"}'):
        yield text, "no_experiment_id"
    for value in ("", 5, 0, 1.5, True, False, [], ["good"], {}, {"id": "good"}, "x" * 201, "x" * 5000):
        yield json.dumps({"experiment_id": value, "event": "x"}).encode(), "invalid_experiment_id"
    for name in ("a\x00b", "\x1b[31m", "a\nb", "\r\n", "a\u202eb", "\u200b", "\x7f", "a\u2028b"):
        yield json.dumps({"experiment_id": name, "event": "x"}).encode(), "invalid_experiment_id"
    yield b'{"experiment_id":"\\ud800","event":"x"}', ANY
    for text in (
        event(),
        event(message="hi"),
        event(value="5"),
        event(x=None),
        event(x="1"),
        event(x=[1]),
        event(x={}),
    ):
        yield text, "nothing_to_measure"
    yield event(timestamp=5), "nothing_to_measure"


def wrong_numbers() -> Iterator[tuple[bytes, str]]:
    for count in ("25", True, False, -1, 1.5, 10**10, [], {}, [1], "x" * 5000, 1e300):
        yield event(event="x", count=count), "invalid_count"
    for text in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 4000):
        yield raw(f'"x":{text}'), ANY
        yield raw(f'"event":"x","count":{text}'), ANY
        yield raw(f'"metric":"x","value":{text}'), ANY
        yield raw(f'"event":"x","x":{text}'), ANY
    for value in (1e16, -1e16, 1e300, 10**16, -(10**30), 1.7976931348623157e308):
        yield event(x=value), "invalid_value"
        yield event(metric="x", value=value), "invalid_value"
    for value in (True, False, "5", None, [], {}, [5]):
        yield event(metric="x", value=value), "invalid_value"
    yield event(metric="x"), "invalid_value"
    yield event(count="5"), ANY
    yield event(count=True), ANY
    yield event(**{f"g{n}": n for n in range(1000)}), "invalid_value"


def wrong_names() -> Iterator[tuple[bytes, str]]:
    for name in ("", 5, True, [], {}, "x" * 101, "x" * 5000, ["x"], 1.5):
        yield event(event=name), "invalid_event"
        yield event(metric=name, value=1), "invalid_event"
    for name in ("a\x00b", "\x1b[2J", "a\nb", "\u202e", "\x7f"):
        yield event(event=name), "invalid_event"
        yield event(**{name: 1}), "invalid_value"
        yield event(metric=name, value=1), "invalid_value"
    for name in ("", "x" * 101, "x" * 5000):
        yield event(**{name: 1}), "invalid_value"
    yield raw('"\\ud800":1'), ANY
    yield raw('"event":"\\udfff"'), ANY


def literals() -> Iterator[tuple[bytes, str]]:
    """What looks like the repr of a dict and must be neither run nor believed."""
    bodies = ["__import__('os').system('touch {marker}')", "open('{marker}','w')", "exec('1')", "().__class__.__base__",
              "[x for x in (1,)]", "lambda: 1", "f'{1}'", "1if 1else 2", "nan", "inf", "float('nan')", "1e999", "1j",
              "b'x'", "{1,2}", "...", "Decimal('1')", "datetime.datetime(2026, 1, 1)", "1 2", "0x" + "f" * 10_000,
              "9" * 5000, "'\\ud800': 1}", "[" * 5000 + "]" * 5000, "-" * 15_000 + "1", "1+" * 7000 + "1", "'" * 9999,
              "(" * 150 + ")" * 150 + "(", "a." * 7000 + "b", "1if 1else " * 1500 + "1", "x" * 20_000]  # fmt: skip
    for body in bodies:
        yield f"{{'experiment_id': 'good', 'x': {body}}}".encode(), "not_json"
    for text in ("{'experiment_id'}", "{1: 2}", "{'experiment_id': 'good', 5: 1}", "{**{}}", "{'a': 1} # {", "dict()"):
        yield text.encode(), ANY
    yield b"{'experiment_id': 'good', 'x': 1\x00}", "not_json"
    yield b"{'experiment_id': 'good', 'x': '\xff'}", "not_json"
    yield b"{'experiment_id': '\\ud800', 'x': 1}", "invalid_experiment_id"
    yield b"{'experiment_id': 'good', 'event': 'a\\x00'}", "invalid_event"
    yield b"{'experiment_id': 'good', 'count': True, 'event': 'x'}", "invalid_count"
    yield b"{'experiment_id': True, 'event': 'x'}", "invalid_experiment_id"
    yield b"{'event': 'x'}", "no_experiment_id"
