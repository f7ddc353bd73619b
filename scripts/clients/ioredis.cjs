// Uses a broadcast server as programs with ioredis do: subscribe, pattern,
// pipeline, a stalled sibling, reconnect.
//
//   NODE_PATH=FOLDER/node_modules node ioredis.cjs PORT PROTOCOL
"use strict";
const assert = require("node:assert");
const net = require("node:net");
const Redis = require("ioredis");
const { version } = require("ioredis/package.json");

const [port, protocol] = process.argv.slice(2).map(Number);
const PATIENCE_MS = 20000;

const connect = () => new Redis({ port, protocol, maxRetriesPerRequest: null });
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until `condition` holds. */
async function until(what, condition) {
  const giveUp = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    assert(Date.now() < giveUp, what);
    await sleep(10);
  }
}

/** A subscriber that notes what comes. */
function listener() {
  const redis = connect();
  const got = [];
  redis.on("message", (channel, data) => got.push([channel, data]));
  redis.on("pmessage", (pattern, channel, data) => got.push([pattern, channel, data]));
  return { redis, got };
}

async function subscribes() {
  const client = connect();
  const { redis, got } = listener();
  await redis.subscribe("news");
  assert.equal(await client.publish("news", "one"), 1);
  await until("the message", () => got.length === 1);
  assert.deepEqual(got, [["news", "one"]]);
  await redis.unsubscribe("news");
  assert.equal(await client.publish("news", "two"), 0);
  client.disconnect();
  redis.disconnect();
}

async function usesPatterns() {
  const client = connect();
  const { redis, got } = listener();
  await redis.psubscribe("ticks.*");
  await client.publish("ticks.eur", "\r\n\0");
  await until("the message", () => got.length === 1);
  assert.deepEqual(got, [["ticks.*", "ticks.eur", "\r\n\0"]]);
  client.disconnect();
  redis.disconnect();
}

async function usesPipelines() {
  const client = connect();
  const { redis, got } = listener();
  await redis.subscribe("pipe");
  for (const make of [() => client.pipeline(), () => client.multi()]) {
    got.length = 0;
    const pipeline = make();
    for (let number = 0; number < 200; number++) pipeline.publish("pipe", number);
    const answers = await pipeline.exec();
    assert.deepEqual(answers, Array(200).fill([null, 1]));
    await until("all messages", () => got.length === 200);
    assert.deepEqual(got.map(([, data]) => Number(data)), [...Array(200).keys()]);
  }
  client.disconnect();
  redis.disconnect();
}

async function hasAStalledSibling() {
  const sibling = net.connect(port, "127.0.0.1");
  sibling.on("error", () => {});
  sibling.write("SUBSCRIBE crowd\r\n");
  sibling.pause();
  const client = connect();
  const { redis, got } = listener();
  await redis.subscribe("crowd");
  const subscribers = async () => (await client.call("PUBSUB", "NUMSUB", "crowd"))[1];
  await until("both subscribers", async () => Number(await subscribers()) === 2);
  const payload = "x".repeat(4096);
  // The kernel of a sibling that was paused takes some megabytes.
  const COUNT = 3000;
  for (let number = 0; number < COUNT; number += 100) {
    const some = [...Array(100).keys()].map((offset) => client.publish("crowd", `${number + offset} ${payload}`));
    await Promise.all(some);
  }
  await until("all messages", () => got.length === COUNT);
  assert.deepEqual(got.map(([, data]) => parseInt(data)), [...Array(COUNT).keys()]);
  await until("the stalled sibling is gone", async () => Number(await subscribers()) === 1);
  sibling.destroy();
  client.disconnect();
  redis.disconnect();
}

async function reconnects() {
  const client = connect();
  const { redis, got } = listener();
  await redis.subscribe("back");
  assert((await client.client("KILL", "TYPE", "pubsub")) >= 1);
  await until("it is back", async () => {
    await client.publish("back", "again");
    return got.length > 0;
  });
  assert.deepEqual(got[0], ["back", "again"]);
  client.disconnect();
  redis.disconnect();
}

(async () => {
  for (const check of [subscribes, usesPatterns, usesPipelines, hasAStalledSibling, reconnects]) {
    await check();
    const name = check.name.replace(/([A-Z])/g, (letter) => ` ${letter.toLowerCase()}`);
    console.log(`  ioredis ${version} protocol ${protocol}: ${name}`);
  }
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
