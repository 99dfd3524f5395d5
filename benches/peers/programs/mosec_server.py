"""The peer's server: two workers that upper-case a JSON string."""

from mosec import Server, Worker


class Upper(Worker):
    def forward(self, data):
        return data.upper()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Upper, num=2)
    server.run()
