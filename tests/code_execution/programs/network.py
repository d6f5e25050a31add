# %% connects_by_tcp
# teeth
import socket
attempt(lambda: socket.create_connection(("127.0.0.1", WORLD["tcp"]), timeout=1))
attempt(socket.socket)

# %% sends_by_udp
# teeth
import socket
attempt(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", WORLD["udp"])))

# %% connects_to_an_abstract_socket
# teeth
import socket
attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", "\0" + WORLD["unix"]))

# %% opens_every_kind_of_socket
import socket
for family in range(1, 46):
    for kind in (1, 2, 3, 5):
        attempt(socket.socket, family, kind)
attempt(socket.socketpair)

# %% listens
import socket
attempt(lambda: socket.create_server(("127.0.0.1", 0)))

# %% asks_a_name_server
import socket
attempt(socket.getaddrinfo, "example.org", 80)
