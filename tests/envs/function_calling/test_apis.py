"""The APIs of the conversations, function by function where they are easily wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agentgym.envs.function_calling.apis import WRITTEN, api_class
from agentgym.envs.function_calling.apis.base import Api, RefusedError


def make(name: str, **config: Any) -> Any:
    return api_class(name)(config)


@pytest.mark.parametrize("name", WRITTEN)
def test_each_starts_from_nothing_and_alike(name: str) -> None:
    one, other = make(name), make(name)
    assert isinstance(one, Api)
    assert one.name == name
    assert one.state() == other.state()


@pytest.mark.parametrize("name", WRITTEN)
def test_a_configuration_is_not_shared(name: str) -> None:
    config: Mapping[str, Any] = {"tweets": {"0": {"id": 0}}, "watch_list": ["A"], "inbox": [{"U": "hi"}]}
    before = str(config)
    api = api_class(name)(config)
    for value in api.state().values():
        if isinstance(value, list | dict):
            value.clear()
    assert str(config) == before


def files() -> Any:
    text = {"type": "file", "content": "b two\na one\nb three"}
    inner = {"type": "directory", "contents": {"deep.txt": {"type": "file", "content": ""}}}
    contents = {"f.txt": text, "d": inner, ".hidden": {"type": "file", "content": "x"}}
    return make("GorillaFileSystem", root={"home": {"type": "directory", "contents": contents}})


def test_files_are_looked_at() -> None:
    fs = files()
    assert fs.ls() == {"current_directory_content": ["f.txt", "d"]}
    assert ".hidden" in fs.ls(a=True)["current_directory_content"]
    assert fs.pwd() == {"current_working_directory": "/home"}
    assert fs.cd("d") == {"current_working_directory": "/home/d"}
    fs.cd("..")
    assert fs.grep("f.txt", "b ") == {"matching_lines": ["b two", "b three"]}
    assert fs.sort("f.txt") == {"sorted_content": "a one\nb three\nb two"}
    assert fs.tail("f.txt", 1) == {"last_lines": "b three"}
    assert [fs.wc("f.txt", mode)["count"] for mode in "lwc"] == [3, 6, 19]
    assert fs.find(name="deep") == {"matches": ["./d/deep.txt"]}
    assert fs.find("d") == {"matches": ["d/deep.txt"]}
    assert fs.du() == {"disk_usage": "20 bytes"}
    fs.echo("b two\nc", "g.txt")
    assert fs.diff("f.txt", "g.txt") == {"diff_lines": "- a one\n+ c\n- b three"}


def test_files_are_changed() -> None:
    fs = files()
    fs.cp("f.txt", "d")
    fs.mv("f.txt", "renamed.txt")
    fs.mkdir("e")
    fs.mv("e", "d")
    assert fs.ls()["current_directory_content"] == ["d", "renamed.txt"]
    fs.cd("d")
    assert fs.ls()["current_directory_content"] == ["deep.txt", "f.txt", "e"]
    fs.echo("new", "f.txt")
    fs.rmdir("e")
    fs.cd("..")
    assert fs.cat("renamed.txt")["file_content"].startswith("b two")  # a copy is a copy
    fs.rm("d")
    assert fs.ls()["current_directory_content"] == ["renamed.txt"]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("cd", ["nowhere"]),
        ("cd", ["f.txt"]),
        ("cd", [".."]),
        ("cat", ["d"]),
        ("cat", ["d/deep.txt"]),
        ("touch", ["f.txt"]),
        ("mkdir", ["d"]),
        ("rmdir", ["d"]),
        ("rmdir", ["f.txt"]),
        ("mv", ["d", "d"]),
        ("cp", ["d", "f.txt"]),
        ("echo", ["x", "d"]),
        ("wc", ["f.txt", "q"]),
        ("find", ["nowhere"]),
    ],
)
def test_what_files_refuse_changes_nothing(command: str, arguments: list[str]) -> None:
    fs, other = files(), files()
    with pytest.raises(RefusedError):
        getattr(fs, command)(*arguments)
    assert fs.state() == other.state()


def test_sums() -> None:
    api = make("MathAPI")
    assert api.logarithm(100.0, 10.0, 5) == {"result": pytest.approx(2.0)}
    assert api.standard_deviation([2, 4, 4, 4, 5, 5, 7, 9]) == {"result": 2.0}
    assert api.power(2, 10) == {"result": 1024}
    assert api.imperial_si_conversion(1, "mile", "km") == {"result": pytest.approx(1.609344)}
    assert api.si_unit_conversion(2, "km", "m") == {"result": 2000.0}
    for refused in (
        lambda: api.divide(1, 0),
        lambda: api.mean([]),
        lambda: api.logarithm(-1, 10, 5),
        lambda: api.square_root(2, 10**9),
        lambda: api.power(10, 10**9),
        lambda: api.si_unit_conversion(1, "km", "s"),
    ):
        with pytest.raises(RefusedError):
            refused()


def test_messages() -> None:
    api = make("MessageAPI")
    with pytest.raises(RefusedError, match="no user is logged in"):
        api.send_message("USR002", "hi")
    api.message_login("USR001")
    assert api.add_contact("Eve")["user_id"] == "USR005"
    api.send_message("USR005", "hello")
    api.send_message("USR005", "again")
    assert api.delete_message("USR005")["deleted_status"]
    assert api.view_messages_sent() == {"messages": {"USR005": ["hello"]}}
    assert api.search_messages("HELL") == {"results": [{"receiver_id": "USR005", "message": "hello"}]}


def test_posts() -> None:
    api = make("TwitterAPI", username="ann", password="p", tweet_counter=3)
    assert api.authenticate_twitter("ann", "q") == {"authentication_status": False}
    with pytest.raises(RefusedError):
        api.post_tweet("hi")
    api.authenticate_twitter("ann", "p")
    assert api.post_tweet("hi", tags=["#x"])["id"] == 3
    api.mention(3, ["@bob"])
    assert api.get_tweet(3)["mentions"] == ["@bob"]
    assert [api.retweet(3)["retweet_status"] for _ in range(2)] == ["retweeted", "already retweeted"]
    assert api.follow_user("alice") == {"follow_status": False}
    assert api.search_tweets("#X")["matching_tweets"][0]["id"] == 3


def test_tickets() -> None:
    api = make("TicketAPI", ticket_counter=7)
    with pytest.raises(RefusedError):
        api.create_ticket("t")
    api.ticket_login("ann", "p")
    assert api.create_ticket("t", priority=5)["id"] == 7
    with pytest.raises(RefusedError):
        api.create_ticket("t", priority=6)
    api.edit_ticket(7, {"status": "Waiting"})
    assert api.get_user_tickets("waiting")["tickets"][0]["title"] == "t"
    api.resolve_ticket(7, "done")
    api.close_ticket(7)
    assert api.get_ticket(7)["status"] == "Closed"


def test_orders() -> None:
    api = make("TradingBot", authenticated=True, account_info={"account_id": 1, "balance": 100.0, "binding_card": 2})
    order = api.place_order("Buy", "NVDA", 10.0, 10)["order_id"]
    assert api.get_order_details(order)["symbol"] == "NVDA"
    api.cancel_order(order)
    for refused in (
        lambda: api.cancel_order(order),
        lambda: api.place_order("Buy", "NVDA", 10.0, 11),
        lambda: api.place_order("Hold", "NVDA", 1.0, 1),
        lambda: api.withdraw_funds(101),
        lambda: api.fund_account(-1),
        lambda: api.get_stock_info("NONE"),
    ):
        with pytest.raises(RefusedError):
            refused()
    assert api.fund_account(50)["new_balance"] == 150.0
    assert api.withdraw_funds(150)["new_balance"] == 0.0


def test_flights() -> None:
    api = make("TravelAPI", access_token="t", credit_card_list={"c": {"balance": 1000.0}})
    assert api.get_flight_cost("SFO", "LAX", "2026-11-10", "business") == {"travel_cost_list": [400.0]}
    booking = api.book_flight("t", "c", "2026-11-10", "SFO", "LAX", "business")["booking_id"]
    assert booking == "3426812"  # the first id that is drawn: the rows' answers name it
    assert api.get_credit_card_balance("t", "c") == {"card_balance": 600.0}
    insurance = api.purchase_insurance("t", "comprehensive", booking, 100.0, "c")["insurance_id"]
    assert api.retrieve_invoice("t", insurance_id=insurance)["invoice"]["insurance_cost"] == 100.0
    assert api.cancel_booking("t", booking) == {"cancel_status": True}
    assert api.get_credit_card_balance("t", "c") == {"card_balance": 900.0}
    for refused in (
        lambda: api.book_flight("x", "c", "2026-11-10", "SFO", "LAX", "economy"),
        lambda: api.book_flight("t", "c", "2026-11-10", "SFO", "LAX", "first"),
        lambda: api.get_flight_cost("SFO", "SFO", "2026-11-10", "first"),
        lambda: api.get_flight_cost("SFO", "LAX", "soon", "first"),
        lambda: api.cancel_booking("t", booking),
        lambda: api.compute_exchange_rate("USD", "gold", 1.0),
    ):
        with pytest.raises(RefusedError):
            refused()


def test_driving_off() -> None:
    car = make("VehicleControlAPI", fuelLevel=10.0)
    with pytest.raises(RefusedError, match="all doors must be locked"):
        car.startEngine("START")
    assert car.lockDoors(False, ["driver", "passenger", "rear_left", "rear_right"])["remainingUnlockedDoors"] == 0
    with pytest.raises(RefusedError, match="brake pedal"):
        car.startEngine("START")
    car.pressBrakePedal(1.0)
    assert car.startEngine("START")["engineState"] == "running"
    assert car.fillFuelTank(40)["fuelLevel"] == 50.0
    with pytest.raises(RefusedError, match="the tank holds 50"):
        car.fillFuelTank(1)
    assert car.estimate_drive_feasibility_by_mileage(1000.0) == {"canDrive": True}
    assert car.estimate_distance("94016", "83214") == car.estimate_distance("83214", "94016")
    with pytest.raises(RefusedError, match="multiple of 5"):
        car.setCruiseControl(64, True, 10)
    car.setCruiseControl(65, True, 10)
    assert car.get_current_speed() == {"currentSpeed": 65.0}
