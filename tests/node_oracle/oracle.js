// Runs traces on Node's own streams and says what they did.
//
// One trace a line comes in on standard input, one line of observations goes
// out for each, in the same order. The first line out is Node's version and
// the rule by which this Node judges a write. trace.rs beside this file
// explains the steps; ours.rs runs the same steps on SendQueue and Pipe.
'use strict';

const readline = require('node:readline');
const { Readable, Writable } = require('node:stream');

const ZEROS = Buffer.alloc(1 << 20);

// Runs after every pending nextTick and microtask.
const ticksHaveRun = () => new Promise((resume) => setImmediate(resume));

// A destination whose sink takes whole chunks, as many as it has credit for.
class Destination {
  constructor(mark) {
    this.credit = 0;
    this.held = null;
    this.onDrain = [];
    this.log = '';
    const take = (done) => {
      if (this.credit > 0) {
        this.credit -= 1;
        done();
      } else {
        this.held = done;
      }
    };
    const gathers = mark.endsWith('v');
    this.stream = new Writable({
      highWaterMark: Number.parseInt(mark, 10),
      write: (chunk, encoding, done) => take(done),
      ...(gathers && { writev: (chunks, done) => take(done) }),
    });
    const write = this.stream.write.bind(this.stream);
    this.stream.write = (chunk) => {
      const answer = write(chunk);
      this.log += answer ? '+' : '-';
      return answer;
    };
    this.stream.on('drain', () => {
      this.log += 'D';
      const action = this.onDrain.shift();
      if (action !== undefined) action();
    });
  }

  write(length) {
    if (this.stream.writableEnded) this.log += '_';
    else this.stream.write(ZEROS.subarray(0, length));
  }

  end() {
    if (this.stream.writableEnded) this.log += '_';
    else this.stream.end();
  }

  take(chunks) {
    this.credit += chunks;
    if (this.held === null || this.credit === 0) return;
    this.credit -= 1;
    const done = this.held;
    this.held = null;
    done();
  }

  observe() {
    const { writableLength, writableNeedDrain } = this.stream;
    const seen = `${this.log}:${writableLength}${writableNeedDrain ? 'n' : ''}`;
    this.log = '';
    return seen;
  }
}

// What feeds the destinations: bytes that arrive are piped on, or wait.
class Source {
  constructor() {
    this.skipped = false;
    this.endArrived = false;
    this.endSeen = false;
    this.destinations = new Set();
    this.stream = new Readable({ read() {} });
    this.stream.on('end', () => { this.endSeen = true; });
  }

  get held() {
    return this.destinations.size > 0 && !this.stream.readableFlowing;
  }

  arrive(length) {
    if (this.endArrived) this.skipped = true;
    else this.stream.push(ZEROS.subarray(0, length));
  }

  end() {
    if (this.endArrived) this.skipped = true;
    else this.stream.push(null);
    this.endArrived = true;
  }

  pipe(destination, anyway) {
    // Node forgets a destination that holds the source when another is added
    // that does not: the stated deviation, run only by the test that owns it.
    const forgets = this.held && !destination.stream.writableNeedDrain;
    if (this.endArrived || this.destinations.has(destination) || (forgets && !anyway)) {
      this.skipped = true;
    } else {
      this.destinations.add(destination);
      this.stream.pipe(destination.stream);
    }
  }

  unpipe(destination) {
    if (this.endSeen || !this.destinations.delete(destination)) this.skipped = true;
    else this.stream.unpipe(destination.stream);
  }

  readThoughHeld() {
    const possible = this.held && this.destinations.size === 1 && !this.endArrived;
    if (possible && this.stream.readableLength > 0) this.stream.read();
    else this.skipped = true;
  }

  observe() {
    const state = this.endSeen ? 'E' : this.stream.readableFlowing ? 'R' : 'H';
    const seen = `${this.skipped ? '_' : ''}${state}${this.stream.readableLength}`;
    this.skipped = false;
    return seen;
  }
}

function step(text, source, destinations) {
  const [verb, rest] = [text[0], text.slice(1)];
  const [index, count] = rest.split(':').map(Number);
  const destination = destinations[index];
  switch (verb) {
    case 'w': return destination.write(count);
    case 't': return destination.take(count);
    case 'x': destination.credit = 0; return;
    case 'e': return destination.end();
    case 'd': destination.onDrain.push(() => destination.write(count)); return;
    case 'f': destination.onDrain.push(() => destination.end()); return;
    case 'a': return source.arrive(index);
    case 'z': return source.end();
    case 'p': return source.pipe(destination, false);
    case 'q': return source.pipe(destination, true);
    case 'u': return source.unpipe(destination);
    case 'r': return source.readThoughHeld();
    case '.': return;
    default: throw new Error(`unknown step ${text}`);
  }
}

async function run(line) {
  const [kind, marks, ...steps] = line.split(' ');
  const destinations = marks.split(',').map((mark) => new Destination(mark));
  const source = kind === 'pipe' ? new Source() : null;
  const seen = [];
  for (const text of steps) {
    step(text, source, destinations);
    if (source !== null || text === '.') await ticksHaveRun();
    const parts = destinations.map((destination) => destination.observe());
    if (source !== null) parts.push(source.observe());
    seen.push(parts.join('|'));
  }
  return seen.join(' ');
}

const probe = new Writable({ highWaterMark: 0, write: (chunk, encoding, done) => done() });
const rule = probe.write('x') ? 'judges-after-the-sink' : 'judges-before-the-sink';
process.stdout.write(`${process.version} ${rule}\n`);

let before = Promise.resolve();
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const answer = run(line);
  before = before.then(() => answer).then((seen) => process.stdout.write(`${seen}\n`));
});
