// The echo server that Node's documentation recommends: pipe pauses the reading
// side while the writing side is over its high-water mark. Nobody is ever
// disconnected. Port as the only argument.
import { createServer } from 'node:net';

const server = createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => socket.destroy());
  socket.pipe(socket);
});
server.listen(Number(process.argv[2]), '127.0.0.1');
