// The string of the old ABI: the only pointer is behind length, capacity and reference count.
#define _GLIBCXX_USE_CXX11_ABI 0
#include <string>

static std::string *held;

int main() {
    held = new std::string("a text that is too long to be kept elsewhere");
    static std::string other(200, 'x');
    quick_exit(other.size() != 200);
}
