"""The errors: their bases, attributes and texts, and that none shows a key."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

from twisted.internet import error as twisted_error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import txserf
from txserf import commands, errors
from txserf.client.requests import REQUESTS, Response
from txserf.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    Disconnected,
    InvalidHostURL,
    InvalidRequest,
    JoinError,
    KeyringError,
    NoMember,
    Overloaded,
    ProtocolError,
    QueryError,
    RequestTimeout,
    RpcError,
    SerfError,
    StopReceiveData,
    reason_text,
)
from txserf.model import KeyReply, QueryResult

#: The bases of each error.
BASES: dict[type[Exception], tuple[type[Exception], ...]] = {
    SerfError: (Exception,),
    InvalidRequest: (SerfError, ValueError),
    InvalidHostURL: (SerfError, ValueError),
    ConnectError: (SerfError,),
    NoMember: (ConnectError,),
    Overloaded: (SerfError,),
    AuthenticationError: (SerfError,),
    RequestTimeout: (SerfError, TimeoutError),
    Disconnected: (SerfError,),
    ConnectionLost: (Disconnected,),
    ProtocolError: (SerfError,),
    RpcError: (SerfError,),
    JoinError: (RpcError,),
    KeyringError: (RpcError,),
    QueryError: (RpcError,),
    StopReceiveData: (Exception,),
}

REPLY = KeyReply(keys={"s3cret==": 1}, messages={"n1": "no"}, nodes=2, errors=1, responses=2)
RESULT = QueryResult(acks=["n1"])

#: Attributes and their values, for each error that has some.
DATA: list[tuple[Callable[..., SerfError], dict[str, Any]]] = [
    (ConnectError, {"failures": (("10.0.0.1:7373", TimeoutError("slow")),)}),
    (AuthenticationError, {"host": "10.0.0.1:7373"}),
    (RequestTimeout, {"responses": ("first", "second")}),
    (ConnectionLost, {"host": "10.0.0.1:7373", "result": RESULT}),
    (RpcError, {"command": "tags", "message": "no"}),
    (JoinError, {"command": "join", "message": "no", "joined": 2}),
    (KeyringError, {"command": "use-key", "message": "no", "reply": REPLY}),
    (QueryError, {"command": "respond", "message": "no"}),
]


class HierarchyTests(SynchronousTestCase):
    def test_each_error_has_the_bases_of_the_design_and_there_is_no_other(self) -> None:
        found = {
            value
            for value in vars(errors).values()
            if inspect.isclass(value) and issubclass(value, BaseException)
        }
        self.assertEqual({kind: kind.__bases__ for kind in found}, BASES)

    def test_each_is_a_public_name(self) -> None:
        for kind in BASES:
            self.assertIs(getattr(txserf, kind.__name__), kind)
            self.assertIn(kind.__name__, txserf.__all__)

    def test_stop_receive_data_is_not_a_serf_error(self) -> None:
        self.assertFalse(issubclass(StopReceiveData, SerfError))

    def test_a_loss_can_be_told_from_our_own_closing(self) -> None:
        self.assertNotIsInstance(Disconnected(), ConnectionLost)
        self.assertIsInstance(ConnectionLost(), Disconnected)

    def test_they_are_not_twisteds_errors_of_the_same_name(self) -> None:
        self.assertFalse(issubclass(ConnectionLost, twisted_error.ConnectionLost))
        self.assertFalse(issubclass(ConnectError, twisted_error.ConnectError))


class AttributeTests(SynchronousTestCase):
    def test_each_holds_its_data_beside_its_text(self) -> None:
        for kind, data in DATA:
            error = kind("the text", **data)
            self.assertEqual(str(error), "the text")
            self.assertEqual({name: getattr(error, name) for name in data}, data)

    def test_each_can_be_made_of_nothing(self) -> None:
        for kind in BASES:
            self.assertIsInstance(kind(), kind)

    def test_data_goes_by_keyword_only(self) -> None:
        for kind, data in DATA:
            self.assertRaises(TypeError, kind, "the text", *data.values())

    def test_without_data_the_attributes_are_there_and_empty(self) -> None:
        self.assertEqual(ConnectError().failures, ())
        self.assertEqual(AuthenticationError().host, "")
        self.assertEqual(RequestTimeout().responses, ())
        self.assertEqual((ConnectionLost().host, ConnectionLost().result), ("", None))
        self.assertEqual((RpcError().command, RpcError().message), ("", ""))
        self.assertEqual((JoinError().command, JoinError().joined), ("join", 0))
        self.assertIsNone(KeyringError().reply)

    def test_the_responses_of_a_timeout_need_no_cast(self) -> None:
        """mypy checks this: the type of the responses is `client`'s, a layer above the errors."""
        row = commands.BY_WIRE["members"]
        answer = Response(REQUESTS[row.wire](row, {}), "", {"Members": []})
        first = RequestTimeout(responses=(answer,)).responses[0]
        self.assertEqual((first.is_success, first.body["Members"]), (True, []))

    def test_the_text_of_an_agents_error_is_the_command_and_the_message(self) -> None:
        self.assertEqual(str(RpcError(command="force-leave", message="no")), "force-leave: no")
        self.assertEqual(str(JoinError(message="no")), "join: no")

    def test_each_survives_copy_and_pickle_with_its_data(self) -> None:
        for kind, data in DATA:
            error = kind("the text", **data)
            for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
                self.assertIs(type(same), type(error))
                self.assertEqual(str(same), "the text")
                for name, value in data.items():
                    kept = getattr(same, name)
                    # Compare the reprs, because exceptions are equal only to themselves.
                    self.assertEqual(repr(kept), repr(value))

    def test_a_text_made_of_data_survives_copy_and_pickle(self) -> None:
        error = JoinError(message="no", joined=1)
        for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            self.assertEqual((str(same), same.command, same.joined), ("join: no", "join", 1))

    def test_a_copy_has_a_traceback_of_its_own(self) -> None:
        """So each waiting Deferred can fail with a copy."""
        try:
            raise ConnectionLost("gone", host="a")
        except ConnectionLost as error:
            self.assertIsNone(copy.copy(error).__traceback__)


class SecrecyTests(SynchronousTestCase):
    def test_no_text_and_no_repr_of_a_keyring_error_has_a_key(self) -> None:
        error = KeyringError(command="list-keys", message="1/2 nodes reported failure", reply=REPLY)
        for shown in (str(error), repr(error), repr(error.reply), Failure(error).getTraceback()):
            self.assertNotIn("s3cret", shown)

    def test_a_refused_key_command_has_the_nodes_messages_and_no_key_in_its_text(self) -> None:
        for row in (commands.INSTALL_KEY, commands.USE_KEY, commands.REMOVE_KEY, commands.LIST_KEYS):
            error = row.refusal("1/2 nodes reported failure", REPLY.to_wire(listing=True))
            assert isinstance(error, KeyringError)
            self.assertEqual(error.reply, REPLY)
            self.assertNotIn("s3cret", str(error) + repr(error))


class Valued(Exception):
    """An error of another library, with an attribute that `Failure` has too."""

    value = "not the reason"


class Broken(Exception):
    """An error whose text can't be made."""

    def __str__(self) -> str:
        raise ValueError("no text")


class ReasonTextTests(SynchronousTestCase):
    def test_it_is_the_text_of_an_exception(self) -> None:
        self.assertEqual(reason_text(ConnectionLost("lost a")), "lost a")

    def test_it_is_the_text_of_a_failures_exception(self) -> None:
        self.assertEqual(reason_text(Failure(ConnectionLost("lost a"))), "lost a")

    def test_for_an_exception_without_a_text_it_is_the_class_name(self) -> None:
        self.assertEqual(reason_text(TimeoutError()), "TimeoutError")
        self.assertEqual(reason_text(Failure(TimeoutError())), "TimeoutError")

    def test_an_exception_that_has_a_value_is_still_an_exception(self) -> None:
        self.assertEqual(reason_text(Valued("the reason")), "the reason")
        self.assertEqual(reason_text(Failure(Valued("the reason"))), "the reason")

    def test_it_is_one_line(self) -> None:
        self.assertEqual(reason_text(ValueError("1 error:\n\t* no\n")), "1 error: * no")

    def test_for_an_exception_whose_text_fails_it_says_so(self) -> None:
        self.assertIn("no text", reason_text(Broken()))

    def test_lone_surrogates_are_escaped(self) -> None:
        self.assertEqual(reason_text(ValueError("a\udcff\u00e9")), "a\\udcff\u00e9")
