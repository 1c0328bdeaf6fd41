"""Flights, the cards that pay for them, insurance and a budget."""

from __future__ import annotations

import hashlib
import random
import re
from typing import Any

from agentgym.envs.function_calling.apis.base import SEED, Api, RefusedError

_AIRPORTS = {
    "Rivermist": "RMS",
    "Stonebrook": "SBK",
    "Maplecrest": "MPC",
    "Silverpine": "SVP",
    "Shadowridge": "SHD",
    "London": "LHR",
    "Paris": "CDG",
    "Sunset Valley": "SSV",
    "Oakendale": "OKD",
    "Willowbend": "WLB",
    "Crescent Hollow": "CRH",
    "Autumnville": "ATV",
    "Pinehaven": "PHV",
    "Greenfield": "GFD",
    "San Francisco": "SFO",
    "Los Angeles": "LAX",
    "New York": "JFK",
    "Chicago": "ORD",
    "Boston": "BOS",
    "Beijing": "PEK",
    "Hong Kong": "HKG",
    "Rome": "CIA",
    "Tokyo": "HND",
}
_FAR = ("LHR", "CDG", "PEK", "HKG", "CIA", "HND")
_FARES = {("LAX", "SFO"): 200.0, ("CIA", "SFO"): 700.0}
"""USD, economy, for pairs of airports whose fare the rows take for granted; others are made up from their names."""
_CLASSES = {"economy": 1, "business": 2, "first": 5}
_A_DOLLAR = {
    "USD": 1.0,
    "RMB": 7.0,
    "EUR": 0.8,
    "JPY": 110.0,
    "GBP": 0.7,
    "CAD": 1.3,
    "AUD": 1.4,
    "INR": 70.0,
    "RUB": 60.0,
    "BRL": 5.0,
    "MXN": 20.0,
}
_DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")


class TravelBooking(Api):
    name = "TravelAPI"
    docs = "travel_booking"

    def load(self, config: dict[str, Any]) -> None:
        self.credit_card_list: dict[str, Any] = config.get("credit_card_list", {})
        self.booking_record: dict[str, Any] = config.get("booking_record", {})
        self.insurance_record: dict[str, Any] = config.get("insurance_record", {})
        self.access_token: str | None = config.get("access_token")
        self.token_type: str | None = config.get("token_type")
        self.token_expires_in: int | None = config.get("token_expires_in")
        self.token_scope: str | None = config.get("token_scope")
        self.user_first_name: str | None = config.get("user_first_name")
        self.user_last_name: str | None = config.get("user_last_name")
        self.budget_limit: float | None = config.get("budget_limit")
        self._random = random.Random(int(config.get("random_seed", SEED)))

    # -- who travels -----------------------------------------------------------------------------------------------

    def authenticate_travel(
        self,
        client_id: str,
        client_secret: str,
        refresh_token: str,
        grant_type: str,
        user_first_name: str,
        user_last_name: str,
    ) -> dict[str, Any]:
        if grant_type not in ("read_write", "read", "write"):
            raise RefusedError(f"grant type {grant_type!r}: expected read_write, read or write")
        self.access_token = self._number(6)
        self.token_type, self.token_expires_in, self.token_scope = "Bearer", 2, grant_type
        self.user_first_name, self.user_last_name = user_first_name, user_last_name
        return {
            "expires_in": self.token_expires_in,
            "access_token": self.access_token,
            "token_type": self.token_type,
            "scope": self.token_scope,
        }

    def travel_get_login_status(self) -> dict[str, Any]:
        return {"status": self.access_token is not None}

    def verify_traveler_information(
        self, first_name: str, last_name: str, date_of_birth: str, passport_number: str
    ) -> dict[str, Any]:
        problem = ""
        if (first_name, last_name) != (self.user_first_name, self.user_last_name):
            problem = "the names are not those of the user"
        elif not _DATE.fullmatch(date_of_birth):
            problem = "the date of birth is no date of the form YYYY-MM-DD"
        elif not re.fullmatch(r"US\w+", passport_number):
            problem = "the passport number is not one of the United States"
        return {"verification_status": not problem, "verification_failure": problem or None}

    def set_budget_limit(self, access_token: str, budget_limit: float) -> dict[str, Any]:
        self._authorised(access_token)
        if budget_limit < 0:
            raise RefusedError("the budget limit cannot be below 0")
        self.budget_limit = float(budget_limit)
        return {"budget_limit": self.budget_limit}

    def get_budget_fiscal_year(
        self,
        lastModifiedAfter: str | None = None,  # noqa: N803 - as documented
        includeRemoved: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        return {"budget_fiscal_year": "2018"}

    # -- cards -----------------------------------------------------------------------------------------------------

    def register_credit_card(
        self,
        access_token: str,
        card_number: str,
        expiration_date: str,
        cardholder_name: str,
        card_verification_number: int,
    ) -> dict[str, Any]:
        self._authorised(access_token)
        card_id = self._number(12)
        self.credit_card_list[card_id] = {
            "card_number": card_number,
            "expiration_date": expiration_date,
            "cardholder_name": cardholder_name,
            "card_verification_number": card_verification_number,
            "balance": 10000.0,
        }
        return {"card_id": card_id}

    def get_all_credit_cards(self) -> dict[str, Any]:
        return {"credit_card_list": dict(self.credit_card_list)}

    def get_credit_card_balance(self, access_token: str, card_id: str) -> dict[str, Any]:
        self._authorised(access_token)
        return {"card_balance": self._card(card_id).get("balance", 0.0)}

    # -- flights ---------------------------------------------------------------------------------------------------

    def list_all_airports(self) -> dict[str, Any]:
        return {"airports": list(_AIRPORTS.values())}

    def get_nearest_airport_by_city(self, location: str) -> dict[str, Any]:
        if location not in _AIRPORTS:
            raise RefusedError(f"no airport is known near {location!r}")
        return {"nearest_airport": _AIRPORTS[location]}

    def get_flight_cost(self, travel_from: str, travel_to: str, travel_date: str, travel_class: str) -> dict[str, Any]:
        return {"travel_cost_list": [_cost(travel_from, travel_to, travel_date, travel_class)]}

    def book_flight(
        self,
        access_token: str,
        card_id: str,
        travel_date: str,
        travel_from: str,
        travel_to: str,
        travel_class: str,
    ) -> dict[str, Any]:
        self._authorised(access_token)
        card = self._card(card_id)
        cost = _cost(travel_from, travel_to, travel_date, travel_class)
        self._pay(card, cost)
        booking_id, transaction_id = self._number(7), self._number(8)
        booking = {
            "card_id": card_id,
            "travel_date": travel_date,
            "travel_from": travel_from,
            "travel_to": travel_to,
            "travel_class": travel_class,
            "travel_cost": cost,
            "transaction_id": transaction_id,
        }
        self.booking_record[booking_id] = booking
        told = {"booking_id": booking_id, **{key: value for key, value in booking.items() if key != "card_id"}}
        return {
            "booking_id": booking_id,
            "transaction_id": transaction_id,
            "booking_status": True,
            "booking_history": told,
        }

    def cancel_booking(self, access_token: str, booking_id: str) -> dict[str, Any]:
        self._authorised(access_token)
        booking = self._booking(booking_id)
        card = self.credit_card_list.get(str(booking.get("card_id")))
        if card is not None:
            card["balance"] = card.get("balance", 0.0) + booking.get("travel_cost", 0.0)
        del self.booking_record[booking_id]
        return {"cancel_status": True}

    def get_booking_history(self, access_token: str) -> dict[str, Any]:
        self._authorised(access_token)
        return {"booking_history": dict(self.booking_record)}

    def purchase_insurance(
        self, access_token: str, insurance_type: str, booking_id: str, insurance_cost: float, card_id: str
    ) -> dict[str, Any]:
        self._authorised(access_token)
        self._booking(booking_id)
        if insurance_cost < 0:
            raise RefusedError("the cost cannot be below 0")
        self._pay(self._card(card_id), insurance_cost)
        insurance_id = self._number(9)
        self.insurance_record[insurance_id] = {
            "insurance_type": insurance_type,
            "booking_id": booking_id,
            "insurance_cost": insurance_cost,
            "card_id": card_id,
        }
        return {"insurance_id": insurance_id, "insurance_status": True}

    def retrieve_invoice(
        self, access_token: str, booking_id: str | None = None, insurance_id: str | None = None
    ) -> dict[str, Any]:
        self._authorised(access_token)
        if booking_id not in (None, "None"):
            return {"invoice": {"booking_id": booking_id, **self._booking(str(booking_id))}}
        if insurance_id in (None, "None") or insurance_id not in self.insurance_record:
            raise RefusedError("give the id of a booking or of an insurance that there is")
        return {"invoice": {"insurance_id": insurance_id, **self.insurance_record[str(insurance_id)]}}

    def contact_customer_support(self, booking_id: str, message: str) -> dict[str, Any]:
        self._booking(booking_id)
        return {"customer_support_message": "Thank you: we are looking into it, and will be in touch within a day."}

    def compute_exchange_rate(self, base_currency: str, target_currency: str, value: float) -> dict[str, Any]:
        for currency in (base_currency, target_currency):
            if currency not in _A_DOLLAR:
                raise RefusedError(f"currency {currency!r}: expected one of {', '.join(_A_DOLLAR)}")
        return {"exchanged_value": round(value / _A_DOLLAR[base_currency] * _A_DOLLAR[target_currency], 2)}

    # -- inside ----------------------------------------------------------------------------------------------------

    def _number(self, digits: int) -> str:
        return str(self._random.randint(10 ** (digits - 1), 10**digits - 1))

    def _authorised(self, token: str) -> None:
        if self.access_token is None or token != self.access_token:
            raise RefusedError("the access token is not valid")

    def _card(self, card_id: str) -> dict[str, Any]:
        card = self.credit_card_list.get(card_id)
        if not isinstance(card, dict):
            raise RefusedError(f"there is no card {card_id!r}")
        return card

    def _booking(self, booking_id: str) -> dict[str, Any]:
        booking = self.booking_record.get(booking_id)
        if not isinstance(booking, dict):
            raise RefusedError(f"there is no booking {booking_id!r}")
        return booking

    def _pay(self, card: dict[str, Any], cost: float) -> None:
        if cost > card.get("balance", 0.0):
            raise RefusedError(f"the card's balance of {card.get('balance', 0.0)} does not cover {cost}")
        card["balance"] -= cost


def _cost(travel_from: str, travel_to: str, travel_date: str, travel_class: str) -> float:
    """USD: the fare of the pair, by class, twice as much on dates whose digits add up to an even number."""
    one, other = sorted((travel_from, travel_to))
    for code in (one, other):
        if code not in _AIRPORTS.values():
            raise RefusedError(f"there is no airport {code!r}")
    if one == other:
        raise RefusedError("the two airports are the same")
    if not _DATE.fullmatch(travel_date):
        raise RefusedError(f"date {travel_date!r}: expected YYYY-MM-DD")
    if travel_class not in _CLASSES:
        raise RefusedError(f"class {travel_class!r}: expected {', '.join(_CLASSES)}")
    busy = sum(int(digit) for digit in travel_date if digit.isdigit()) % 2 == 0
    return _fare(one, other) * _CLASSES[travel_class] * (2 if busy else 1)


def _fare(one: str, other: str) -> float:
    if (one, other) in _FARES:
        return _FARES[one, other]
    drawn = hashlib.blake2b(f"{one}-{other}".encode(), digest_size=2).digest()
    step = int.from_bytes(drawn, "big") % 20
    return float(500 + 10 * step if one in _FAR or other in _FAR else 180 + 10 * step)
