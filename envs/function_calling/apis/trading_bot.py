"""A broker: quotes, orders, a watch list, and the account that pays."""

from __future__ import annotations

from typing import Any

from agentgym.envs.function_calling.apis.base import Api, RefusedError, by_number


def _stock(price: float, change: float, volume: float, five: float, twenty: float) -> dict[str, float]:
    return {"price": price, "percent_change": change, "volume": volume, "MA(5)": five, "MA(20)": twenty}


_STOCKS = {
    "AAPL": _stock(227.16, 0.17, 2.552, 227.11, 227.09),
    "GOOG": _stock(2840.34, 0.24, 1.123, 2835.67, 2842.15),
    "TSLA": _stock(667.92, -0.12, 1.654, 671.15, 668.20),
    "MSFT": _stock(310.23, 0.09, 3.234, 309.88, 310.11),
    "NVDA": _stock(220.34, 0.34, 1.234, 220.45, 220.67),
    "AMZN": _stock(3340.25, -0.12, 2.123, 3330.5, 3325.7),
    "ZETA": _stock(150.75, 0.05, 1.789, 151.2, 150.9),
    "OMEG": _stock(457.23, 0.12, 2.345, 456.78, 457.12),
    "QUAS": _stock(725.89, -0.03, 1.789, 726.45, 726.12),
    "NEPT": _stock(88.34, 0.19, 0.654, 88.21, 88.67),
    "SYNX": _stock(345.67, 0.11, 2.112, 345.34, 345.89),
    "ALPH": _stock(1320.45, -0.08, 1.567, 1321.12, 1325.78),
}
_SYMBOLS = {
    "apple": "AAPL",
    "google": "GOOG",
    "tesla": "TSLA",
    "microsoft": "MSFT",
    "nvidia": "NVDA",
    "amazon": "AMZN",
    "zeta": "ZETA",
    "omega": "OMEG",
    "quasar": "QUAS",
    "neptune": "NEPT",
    "synex": "SYNX",
    "alphabet": "ALPH",
}
_SECTORS = {"Technology": ["AAPL", "GOOG", "MSFT", "NVDA"], "Automobile": ["TSLA", "F", "GM"]}
_NOW = "10:30 AM"
_TODAY = "2024-10-27 10:30:00"
_DONE = ("Completed", "Cancelled")


class TradingBot(Api):
    name = "TradingBot"
    docs = "trading_bot"

    def load(self, config: dict[str, Any]) -> None:
        account = {"account_id": 12345, "balance": 10000.0, "binding_card": 1974202140965533}
        self.account_info: dict[str, Any] = config.get("account_info", account)
        orders = [
            {"id": 12345, "order_type": "Buy", "symbol": "AAPL", "price": 210.65, "amount": 10, "status": "Completed"},
            {"id": 12446, "order_type": "Sell", "symbol": "GOOG", "price": 2840.56, "amount": 5, "status": "Pending"},
        ]
        known = {order["id"]: order for order in orders}
        self.orders: dict[Any, Any] = by_number(config.get("orders", known), "TradingBot: orders")
        self.order_counter = int(config.get("order_counter", 12446))
        self.authenticated = bool(config.get("authenticated", False))
        self.market_status: str = config.get("market_status", "Closed")
        self.stocks: dict[str, Any] = {**_STOCKS, **config.get("stocks", {})}
        self.watch_list: list[str] = config.get("watch_list", ["NVDA"])
        self.transaction_history: list[dict[str, Any]] = config.get("transaction_history", [])

    # -- the account -----------------------------------------------------------------------------------------------

    def trading_login(self, username: str, password: str) -> dict[str, Any]:
        if self.authenticated:
            return {"status": "already logged in"}
        self.authenticated = True
        return {"status": f"{username} is logged in"}

    def trading_logout(self) -> dict[str, Any]:
        if not self.authenticated:
            return {"status": "nobody is logged in"}
        self.authenticated = False
        return {"status": "logged out"}

    def trading_get_login_status(self) -> dict[str, Any]:
        return {"status": self.authenticated}

    def get_account_info(self) -> dict[str, Any]:
        self._logged_in()
        return dict(self.account_info)

    def fund_account(self, amount: float) -> dict[str, Any]:
        return self._move(amount, "deposit", "the account was funded")

    def withdraw_funds(self, amount: float) -> dict[str, Any]:
        return self._move(-amount, "withdrawal", "the funds were withdrawn")

    def get_transaction_history(self, start_date: str | None = None, end_date: str | None = None) -> dict[str, Any]:
        self._logged_in()
        first = "" if start_date in (None, "None") else str(start_date)
        last = "9999" if end_date in (None, "None") else f"{end_date} 99"
        known = [row for row in self.transaction_history if first <= str(row.get("timestamp", "")) <= last]
        return {"transaction_history": known}

    # -- stocks ----------------------------------------------------------------------------------------------------

    def get_current_time(self) -> dict[str, Any]:
        return {"current_time": _NOW}

    def get_available_stocks(self, sector: str) -> dict[str, Any]:
        return {"stock_list": list(_SECTORS.get(sector, []))}

    def get_symbol_by_name(self, name: str) -> dict[str, Any]:
        words = name.lower().split()
        return {"symbol": next((_SYMBOLS[word] for word in words if word in _SYMBOLS), "Stock not found")}

    def get_stock_info(self, symbol: str) -> dict[str, Any]:
        return dict(self._stock(symbol))

    def filter_stocks_by_price(self, stocks: list[str], min_price: float, max_price: float) -> dict[str, Any]:
        known = [symbol for symbol in stocks if symbol in self.stocks]
        fitting = [symbol for symbol in known if min_price <= self.stocks[symbol]["price"] <= max_price]
        return {"filtered_stocks": fitting}

    def notify_price_change(self, stocks: list[str], threshold: float) -> dict[str, Any]:
        changed = [s for s in stocks if s in self.stocks and abs(self.stocks[s]["percent_change"]) >= threshold]
        told = f"changed by {threshold:g}% or more: {', '.join(changed)}" if changed else "no significant change"
        return {"notification": told}

    def get_watchlist(self) -> dict[str, Any]:
        return {"watchlist": list(self.watch_list)}

    def add_to_watchlist(self, stock: str) -> dict[str, Any]:
        self._stock(stock)
        if stock not in self.watch_list:
            self.watch_list.append(stock)
        return {"watchlist": list(self.watch_list)}

    def remove_stock_from_watchlist(self, symbol: str) -> dict[str, Any]:
        if symbol not in self.watch_list:
            raise RefusedError(f"{symbol} is not on the watch list")
        self.watch_list.remove(symbol)
        return {"status": f"{symbol} was removed from the watch list"}

    # -- orders ----------------------------------------------------------------------------------------------------

    def place_order(self, order_type: str, symbol: str, price: float, amount: int) -> dict[str, Any]:
        self._logged_in()
        self._stock(symbol)
        if order_type.lower() not in ("buy", "sell"):
            raise RefusedError(f"order type {order_type!r}: expected Buy or Sell")
        if price <= 0 or amount <= 0:
            raise RefusedError("price and amount must be above 0")
        if order_type.lower() == "buy" and price * amount > self.account_info["balance"]:
            raise RefusedError(f"the balance of {self.account_info['balance']} does not cover {price * amount}")
        order = {
            "id": self.order_counter,
            "order_type": order_type,
            "symbol": symbol,
            "price": price,
            "amount": amount,
            "status": "Open",
        }
        self.orders[self.order_counter] = order
        self.order_counter += 1
        told = {key: order[key] for key in ("order_type", "price", "amount")}
        return {"order_id": order["id"], "status": "Pending", **told}

    def get_order_details(self, order_id: int) -> dict[str, Any]:
        self._logged_in()
        order = self._order(order_id)
        if self.market_status == "Open" and order.get("status") == "Pending":
            order["status"] = "Open"
        return dict(order)

    def cancel_order(self, order_id: int) -> dict[str, Any]:
        self._logged_in()
        order = self._order(order_id)
        if order.get("status") in _DONE:
            raise RefusedError(f"order {order_id} is {order['status'].lower()} already")
        order["status"] = "Cancelled"
        return {"order_id": order_id, "status": "Cancelled"}

    def get_order_history(self) -> dict[str, Any]:
        self._logged_in()
        return {"order_history": [order_id for order_id in self.orders if isinstance(order_id, int)]}

    # -- inside ----------------------------------------------------------------------------------------------------

    def _logged_in(self) -> None:
        if not self.authenticated:
            raise RefusedError("nobody is logged in")

    def _stock(self, symbol: str) -> dict[str, Any]:
        if symbol not in self.stocks:
            raise RefusedError(f"there is no stock {symbol!r}")
        found: dict[str, Any] = self.stocks[symbol]
        return found

    def _order(self, order_id: int) -> dict[str, Any]:
        order = self.orders.get(order_id)
        if not isinstance(order, dict):
            raise RefusedError(f"there is no order {order_id}")
        return order

    def _move(self, amount: float, kind: str, told: str) -> dict[str, Any]:
        self._logged_in()
        if (amount <= 0) == (kind == "deposit") or amount == 0:
            raise RefusedError("the amount must be above 0")
        if self.account_info["balance"] + amount < 0:
            raise RefusedError("the balance does not cover that")
        self.account_info["balance"] += amount
        self.transaction_history.append({"type": kind, "amount": abs(amount), "timestamp": _TODAY})
        return {"status": told, "new_balance": self.account_info["balance"]}
