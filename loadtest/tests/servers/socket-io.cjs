// Rooms and events as the load tester's Socket.IO adapter expects them.
const http = require("http").createServer();
const io = new (require("socket.io").Server)(http);

io.on("connection", (socket) => {
  socket.on("subscribe", (channel, acknowledge) => {
    socket.join(channel);
    acknowledge();
  });
  socket.on("publish", (channel, data, acknowledge) => {
    io.to(channel).emit("message", channel, data);
    acknowledge();
  });
});
http.listen(0, "127.0.0.1", () => console.log(`ws://127.0.0.1:${http.address().port}`));
process.stdin.resume().on("end", () => process.exit(0));
