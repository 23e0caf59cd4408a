// new[] of a class with a destructor gives out a pointer behind the count; and other containers.
#include <map>
#include <memory>
#include <string>
#include <vector>

struct Element {
    int *number = new int(7);
    ~Element() { delete number; }
};

static Element *array;
static std::vector<std::string> *strings;
static std::map<int, std::string> numbers;
static std::shared_ptr<Element> shared;

static __attribute__((noinline)) void lose() { new std::vector<std::string>(3, std::string(50, 'y')); }
static __attribute__((noinline)) void overwrite() {
    volatile char frame[4096];
    for (int i = 0; i < 4096; i++) frame[i] = 0;
}

int main() {
    array = new Element[11];
    strings = new std::vector<std::string>(5, std::string(300, 'x'));
    for (int i = 0; i < 20; i++) numbers[i] = std::string(40, 'n');
    shared = std::make_shared<Element>();
    lose();
    overwrite();
    quick_exit(0);
}
