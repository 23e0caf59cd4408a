// The only pointer is to a later base: it stands for the object.
struct First { virtual ~First() {} long a = 1; };
struct Second { virtual ~Second() {} long b = 2; };
struct Both : First, Second { long c = 3; };
struct Plain { long d = 4; };
struct Mixed : First, Plain { long e = 5; };

static Second *second;
static Plain *plain;

int main() {
    second = new Both;
    plain = new Mixed;
    return 0;
}
