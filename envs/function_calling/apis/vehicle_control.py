"""A car: engine, doors, brakes, climate, tires, navigation."""

# ruff: noqa: N802, N803, N815 - functions, arguments and state are called as the docs and rows have them

from __future__ import annotations

from typing import Any

from agentgym.envs.function_calling.apis.base import Api, RefusedError

_TANK = 50.0  # gallons
_MILES_A_GALLON = 20.0
_LITERS_A_GALLON = 3.785411784
_DOORS = ("driver", "passenger", "rear_left", "rear_right")
_ZIPCODES = {
    "Rivermist": "83214",
    "Stonebrook": "74532",
    "Maplecrest": "56108",
    "Silverpine": "62947",
    "Shadowridge": "71354",
    "Sunset Valley": "83462",
    "Oakendale": "47329",
    "Willowbend": "60714",
    "Crescent Hollow": "69238",
    "Autumnville": "51479",
    "Pinehaven": "60862",
    "Greenfield": "45821",
    "San Francisco": "94016",
    "Los Angeles": "90012",
    "New York": "10112",
    "Chicago": "60602",
    "Boston": "02108",
}
_KILOMETERS = {
    ("83214", "94016"): 980.0,
    ("62947", "94016"): 780.0,
    ("74532", "83214"): 750.0,
    ("74532", "94016"): 880.0,
    ("51479", "69238"): 630.0,
    ("47329", "62947"): 920.0,
    ("56108", "62947"): 320.0,
    ("71354", "83462"): 450.0,
    ("51479", "60862"): 530.0,
    ("47329", "60714"): 290.0,
    ("90012", "94016"): 610.0,
    ("02108", "10112"): 350.0,
}
_NUMBERS: dict[str, float] = {
    "fuelLevel": 5.0,
    "batteryVoltage": 12.8,
    "acTemperature": 25.0,
    "humidityLevel": 50.0,
    "parkingBrakeForce": 0.0,
    "slopeAngle": 0.0,
    "distanceToNextVehicle": 50.0,
    "frontLeftTirePressure": 32.0,
    "frontRightTirePressure": 32.0,
    "rearLeftTirePressure": 30.0,
    "rearRightTirePressure": 30.0,
    "brakePedalForce": 0.0,
}
_TEXTS = {
    "engineState": "stopped",
    "acMode": "auto",
    "headLightStatus": "off",
    "parkingBrakeStatus": "released",
    "cruiseStatus": "inactive",
    "destination": "None",
    "brakePedalStatus": "released",
}


class VehicleControl(Api):
    name = "VehicleControlAPI"
    docs = "vehicle_control"

    fuelLevel: float
    batteryVoltage: float
    acTemperature: float
    humidityLevel: float
    parkingBrakeForce: float
    slopeAngle: float
    distanceToNextVehicle: float
    frontLeftTirePressure: float
    frontRightTirePressure: float
    rearLeftTirePressure: float
    rearRightTirePressure: float
    brakePedalForce: float
    engineState: str
    acMode: str
    headLightStatus: str
    parkingBrakeStatus: str
    cruiseStatus: str
    destination: str
    brakePedalStatus: str

    def load(self, config: dict[str, Any]) -> None:
        for key, number in _NUMBERS.items():
            setattr(self, key, float(config.get(key, number)))
        for key, text in _TEXTS.items():
            setattr(self, key, str(config.get(key, text)))
        self.fanSpeed = int(config.get("fanSpeed", 50))
        self.doorStatus: dict[str, str] = {**dict.fromkeys(_DOORS, "unlocked"), **config.get("doorStatus", {})}
        self.cruiseSpeed = float(config.get("cruiseSpeed", 0.0))

    # -- driving off -----------------------------------------------------------------------------------------------

    def startEngine(self, ignitionMode: str) -> dict[str, Any]:
        _one_of("ignition mode", ignitionMode, ("START", "STOP"))
        if ignitionMode == "START":
            if self._unlocked():
                raise RefusedError(f"all doors must be locked first; unlocked: {', '.join(self._unlocked())}")
            if self.brakePedalForce < 1000.0:
                raise RefusedError("the brake pedal must be fully pressed first")
            if self.fuelLevel <= 0:
                raise RefusedError("the fuel tank is empty")
        self.engineState = "running" if ignitionMode == "START" else "stopped"
        return {
            "engineState": self.engineState,
            "fuelLevel": self.fuelLevel,
            "batteryVoltage": self.batteryVoltage,
        }

    def fillFuelTank(self, fuelAmount: float) -> dict[str, Any]:
        if fuelAmount < 0:
            raise RefusedError("the amount of fuel cannot be below 0")
        if self.fuelLevel + fuelAmount > _TANK:
            raise RefusedError(f"the tank holds {_TANK:g} gallons, and {self.fuelLevel:g} are in it")
        self.fuelLevel += fuelAmount
        return {"fuelLevel": self.fuelLevel}

    def lockDoors(self, unlock: bool, door: list[str]) -> dict[str, Any]:
        for name in door:
            _one_of("door", name, _DOORS)
        status = "unlocked" if unlock else "locked"
        self.doorStatus.update(dict.fromkeys(door, status))
        return {"lockStatus": status, "remainingUnlockedDoors": len(self._unlocked())}

    def pressBrakePedal(self, pedalPosition: float) -> dict[str, Any]:
        if not 0 <= pedalPosition <= 1:
            raise RefusedError("the pedal position must be from 0 to 1")
        self.brakePedalForce = 1000.0 * pedalPosition
        self.brakePedalStatus = "pressed" if pedalPosition else "released"
        return {"brakePedalStatus": self.brakePedalStatus, "brakePedalForce": self.brakePedalForce}

    def releaseBrakePedal(self) -> dict[str, Any]:
        return self.pressBrakePedal(0.0)

    def activateParkingBrake(self, mode: str) -> dict[str, Any]:
        _one_of("mode", mode, ("engage", "release"))
        self.parkingBrakeStatus = "engaged" if mode == "engage" else "released"
        self.parkingBrakeForce = 500.0 if mode == "engage" else 0.0
        self.slopeAngle = 10.0 if mode == "engage" else 0.0
        return {
            "parkingBrakeStatus": self.parkingBrakeStatus,
            "_parkingBrakeForce": self.parkingBrakeForce,
            "_slopeAngle": self.slopeAngle,
        }

    def setCruiseControl(self, speed: float, activate: bool, distanceToNextVehicle: float) -> dict[str, Any]:
        if activate and self.engineState != "running":
            raise RefusedError("the engine must be running first")
        if activate and (not 0 <= speed <= 120 or speed % 5):
            raise RefusedError("the speed must be from 0 to 120 and a multiple of 5")
        self.cruiseStatus = "active" if activate else "inactive"
        self.cruiseSpeed = float(speed) if activate else 0.0
        self.distanceToNextVehicle = float(distanceToNextVehicle)
        return {
            "cruiseStatus": self.cruiseStatus,
            "currentSpeed": self.cruiseSpeed,
            "distanceToNextVehicle": self.distanceToNextVehicle,
        }

    # -- comfort and lights ----------------------------------------------------------------------------------------

    def adjustClimateControl(
        self, temperature: float, unit: str = "celsius", fanSpeed: int = 50, mode: str = "auto"
    ) -> dict[str, Any]:
        _one_of("unit", unit, ("celsius", "fahrenheit"))
        _one_of("mode", mode, ("auto", "cool", "heat", "defrost"))
        if not 0 <= fanSpeed <= 100:
            raise RefusedError("the fan speed must be from 0 to 100")
        self.acTemperature = (temperature - 32) * 5 / 9 if unit == "fahrenheit" else float(temperature)
        self.fanSpeed, self.acMode = fanSpeed, mode
        return {
            "currentTemperature": self.acTemperature,
            "climateMode": self.acMode,
            "humidityLevel": self.humidityLevel,
        }

    def setHeadlights(self, mode: str) -> dict[str, Any]:
        _one_of("mode", mode, ("on", "off", "auto"))
        self.headLightStatus = "off" if mode == "off" else "on"
        return {"headlightStatus": self.headLightStatus}

    # -- looking ---------------------------------------------------------------------------------------------------

    def displayCarStatus(self, option: str) -> dict[str, Any]:
        shown: dict[str, dict[str, Any]] = {
            "fuel": {"fuelLevel": self.fuelLevel},
            "battery": {"batteryVoltage": self.batteryVoltage},
            "doors": {"doorStatus": dict(self.doorStatus)},
            "climate": {
                "currentACTemperature": self.acTemperature,
                "fanSpeed": self.fanSpeed,
                "climateMode": self.acMode,
                "humidityLevel": self.humidityLevel,
            },
            "headlights": {"headlightStatus": self.headLightStatus},
            "parkingBrake": {
                "parkingBrakeStatus": self.parkingBrakeStatus,
                "parkingBrakeForce": self.parkingBrakeForce,
                "slopeAngle": self.slopeAngle,
            },
            "brakePedal": {"brakePedalStatus": self.brakePedalStatus, "brakePedalForce": self.brakePedalForce},
            "engine": {"engineState": self.engineState},
        }
        _one_of("option", option, tuple(shown))
        return {"status": shown[option]}

    def display_log(self, messages: list[str]) -> dict[str, Any]:
        return {"log": list(messages)}

    def check_tire_pressure(self) -> dict[str, Any]:
        pressures = {
            "frontLeftTirePressure": self.frontLeftTirePressure,
            "frontRightTirePressure": self.frontRightTirePressure,
            "rearLeftTirePressure": self.rearLeftTirePressure,
            "rearRightTirePressure": self.rearRightTirePressure,
        }
        healthy = 30.0 <= sum(pressures.values()) / len(pressures) <= 35.0
        return {"tirePressure": {**pressures, "healthy_tire_pressure": healthy, "car_info": {}}}

    def find_nearest_tire_shop(self) -> dict[str, Any]:
        return {"shopLocation": "456 Oakwood Avenue, Rivermist, 83214"}

    def get_current_speed(self) -> dict[str, Any]:
        return {"currentSpeed": self.cruiseSpeed}

    def get_outside_temperature_from_google(self) -> dict[str, Any]:
        return {"outsideTemperature": 18.0}

    def get_outside_temperature_from_weather_com(self) -> dict[str, Any]:
        raise RefusedError("the weather service does not answer")

    # -- the way ---------------------------------------------------------------------------------------------------

    def get_zipcode_based_on_city(self, city: str) -> dict[str, Any]:
        if city not in _ZIPCODES:
            raise RefusedError(f"the zip code of {city!r} is not known")
        return {"zipcode": _ZIPCODES[city]}

    def estimate_distance(self, cityA: str, cityB: str) -> dict[str, Any]:
        one, other = sorted((cityA, cityB))
        if (one, other) not in _KILOMETERS:
            raise RefusedError(f"no way is known between {cityA!r} and {cityB!r}; give zip codes")
        return {"distance": _KILOMETERS[one, other], "intermediaryCities": []}

    def estimate_drive_feasibility_by_mileage(self, distance: float) -> dict[str, Any]:
        return {"canDrive": distance <= self.fuelLevel * _MILES_A_GALLON}

    def set_navigation(self, destination: str) -> dict[str, Any]:
        self.destination = destination
        return {"status": f"on the way to {destination}"}

    def gallon_to_liter(self, gallon: float) -> dict[str, Any]:
        return {"liter": gallon * _LITERS_A_GALLON}

    def liter_to_gallon(self, liter: float) -> dict[str, Any]:
        return {"gallon": liter / _LITERS_A_GALLON}

    def _unlocked(self) -> list[str]:
        return [name for name, status in self.doorStatus.items() if status != "locked"]


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RefusedError(f"{what} {value!r}: expected one of {', '.join(known)}")
