// Echo as Node's own documentation has it: the socket piped into itself.
//
// Usage: node echo.mjs PORT (0 takes a free one)
import { createServer } from 'node:net';

const server = createServer({ noDelay: true }, (client) => {
  client.on('error', () => client.destroy());
  client.pipe(client);
});

server.listen({ host: '127.0.0.1', port: Number(process.argv[2] ?? 0), backlog: 4096 }, () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`);
});
