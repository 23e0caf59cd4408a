"""round_trips.py N: N times JSON text to objects and back, as web services do all day."""

import json
import sys

document = {
    "orders": [
        {
            "id": number,
            "customer": f"customer {number * 7919 % 1000}",
            "lines": [{"article": f"A{n:05}", "count": n % 9, "price": n * 1.25} for n in range(12)],
            "paid": number % 3 == 0,
            "note": None,
        }
        for number in range(100)
    ]
}
text = json.dumps(document)
for _ in range(int(sys.argv[1])):
    text = json.dumps(json.loads(text))
print(len(text))
