// A server that sends every message it gets to everybody, as the examples of `ws` do.
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ port: 0, host: "127.0.0.1" }, () => {
  console.log(`ws://127.0.0.1:${server.address().port}`);
});
server.on("connection", (socket) => {
  socket.send("welcome");
  socket.on("message", (data) => {
    for (const client of server.clients) client.send(data.toString());
  });
});
process.stdin.resume().on("end", () => process.exit(0));
