/**
 * How the client connects: a broker that takes a connection and then closes it, or says nothing, is as good as away. The client goes on to the next
 * of the configured brokers, or to newer metadata, only when a connection is refused; otherwise it asks the same one again and again, up to a
 * minute and more, whatever the others could tell. Such brokers are common: one that hangs, and any that dies behind a balancer or a port that is
 * passed on.
 */
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const Broker = require('kafkajs/src/broker') as { prototype: Connecting };
const { KafkaJSConnectionError } = require('kafkajs/src/errors') as { KafkaJSConnectionError: new (message: string, options: object) => Error };

interface Connecting {
  readonly brokerAddress: string;
  connect(): Promise<void>;
}

/** What is meant by each: the broker cannot be talked to. */
const unreachable = new Set(['KafkaJSConnectionClosedError', 'KafkaJSRequestTimeoutError']);

/** Called once, before the first client is opened. */
export function treatSilenceAsRefusal(): void {
  const { connect } = Broker.prototype;
  Broker.prototype.connect = async function (this: Connecting): Promise<void> {
    try {
      await connect.call(this);
    } catch (error) {
      if (!(error instanceof Error) || !unreachable.has(error.name)) throw error;
      throw new KafkaJSConnectionError(error.message, { broker: this.brokerAddress });
    }
  };
}
