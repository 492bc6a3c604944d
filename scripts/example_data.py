"""Write examples/orders.csv and examples/customers.json, an invented shop: the same rows every time."""

from __future__ import annotations

import csv
import json
import random
from datetime import date, timedelta
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "examples"
CITIES = {"Lisbon": "south", "Porto": "south", "Ghent": "west", "Utrecht": "west", "Graz": "east", "Brno": "east"}
PRODUCTS = {"chain": 2490, "saddle": 5900, "brake pads": 1295, "dynamo hub": 11900, "bell": 850, "inner tube": 690}
FIRST = ["Ana", "Bram", "Carla", "Dusan", "Eva", "Filip", "Greet", "Hugo", "Ines", "Jan", "Katka", "Luis"]
LAST = ["Almeida", "Brandt", "Costa", "De Smet", "Egger", "Fiala", "Gruber", "Horak", "Jansen", "Kovar"]
CUSTOMERS = 60
ORDERS = 480


def customers(draw: random.Random) -> list[dict[str, object]]:
    return [
        {
            "id": f"C{number:03}",
            "name": f"{draw.choice(FIRST)} {draw.choice(LAST)}",
            "city": draw.choice(list(CITIES)),
            "newsletter": draw.random() < 0.4,
            "tags": sorted(draw.sample(["shop", "club", "courier", "workshop"], draw.randint(0, 2))),
        }
        for number in range(1, CUSTOMERS + 1)
    ]


def orders(draw: random.Random, buyers: list[dict[str, object]]) -> list[dict[str, object]]:
    rows = []
    for number in range(1, ORDERS + 1):
        buyer = draw.choice(buyers)
        product = draw.choices(list(PRODUCTS), weights=[5, 2, 6, 1, 3, 9])[0]
        quantity = draw.choices([1, 2, 3, 4, 10], weights=[50, 25, 12, 8, 5])[0]
        rows.append(
            {
                "order_id": f"O{number:05}",
                "date": (date(2025, 1, 2) + timedelta(days=number * 360 // ORDERS)).isoformat(),
                "customer_id": buyer["id"],
                "region": CITIES[str(buyer["city"])],
                "product": product,
                "quantity": quantity,
                "amount": f"{PRODUCTS[product] * quantity / 100:.2f}",
            }
        )
    return rows


def main() -> None:
    draw = random.Random(20250102)
    buyers = customers(draw)
    rows = orders(draw, buyers)
    (FOLDER / "customers.json").write_text(json.dumps(buyers, indent=1, ensure_ascii=False) + "\n")
    with (FOLDER / "orders.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
