// A file over UDT 4, as plainly as the library does it: `udt receive PORT FILE`, `udt send HOST PORT FILE`.
#include <arpa/inet.h>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#if __has_include(<udt.h>)
#include <udt.h>
#else
#include <udt/udt.h>
#endif

static void check(bool fine, const char *what) {
    if (fine) return;
    std::cerr << what << ": " << UDT::getlasterror().getErrorMessage() << "\n";
    exit(1);
}

static sockaddr_in address(const char *host, const char *port) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(static_cast<uint16_t>(atoi(port)));
    inet_pton(AF_INET, host, &at.sin_addr);
    return at;
}

static void all(UDTSOCKET socket, char *data, int size, bool out) {
    while (size > 0) {
        int count = out ? UDT::send(socket, data, size, 0) : UDT::recv(socket, data, size, 0);
        check(count != UDT::ERROR, "length");
        data += count;
        size -= count;
    }
}

int main(int argc, char **argv) {
    bool sends = argc == 5 && !strcmp(argv[1], "send");
    if (!sends && argc != 4) return 2;
    UDT::startup();
    UDTSOCKET socket = UDT::socket(AF_INET, SOCK_STREAM, 0);
    int64_t length = 0, from = 0;
    if (sends) {
        sockaddr_in to = address(argv[2], argv[3]);
        check(UDT::connect(socket, reinterpret_cast<sockaddr *>(&to), sizeof to) != UDT::ERROR, "connect");
        std::fstream file(argv[4], std::ios::in | std::ios::binary | std::ios::ate);
        length = file.tellg();
        file.seekg(0);
        all(socket, reinterpret_cast<char *>(&length), sizeof length, true);
        check(UDT::sendfile(socket, file, from, length) == length, "send");
        char done;
        UDT::recv(socket, &done, 1, 0);
    } else {
        sockaddr_in at = address("0.0.0.0", argv[2]);
        check(UDT::bind(socket, reinterpret_cast<sockaddr *>(&at), sizeof at) != UDT::ERROR, "bind");
        UDT::listen(socket, 1);
        UDTSOCKET peer = UDT::accept(socket, nullptr, nullptr);
        check(peer != UDT::INVALID_SOCK, "accept");
        all(peer, reinterpret_cast<char *>(&length), sizeof length, false);
        std::fstream file(argv[3], std::ios::out | std::ios::binary | std::ios::trunc);
        check(UDT::recvfile(peer, file, from, length) == length, "receive");
        file.close();
        char done = 1;
        UDT::send(peer, &done, 1, 0);
        UDT::close(peer);
    }
    UDT::close(socket);
    UDT::cleanup();
}
