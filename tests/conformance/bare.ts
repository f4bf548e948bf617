/** A client as its own users have it, without the guards of an adapter: what the cases of the suite ask of it. */

/** default: the client's own number of tries. few: one or two more than the first. one: one more, as the client's options say it. */
export type Tries = 'default' | 'few' | 'one';

export interface BareProducer {
  /** partition null: the client chooses. */
  send(topic: string, partition: number | null, values: readonly string[]): Promise<void>;
  /** One call with a message for each partition. */
  sendAcross(topic: string, values: ReadonlyMap<number, string>): Promise<void>;
  close(): Promise<void>;
}

export interface GroupMember {
  readonly memberId: string;
  readonly generationId: number;
}

export interface BareTransaction {
  send(topic: string, partition: number, value: string, key?: Buffer): Promise<void>;
  /** A consumer's position, as a part of the transaction; of a member, where the client can say so. */
  noteOffset(group: string, topic: string, offset: number, member: GroupMember | null): Promise<void>;
  commit(): Promise<void>;
  abort(): Promise<void>;
}

export interface BareTransactionalProducer {
  begin(): Promise<BareTransaction>;
  close(): Promise<void>;
}

export interface BareClient {
  readonly name: string;
  readonly version: string;
  /** Idempotent. */
  producer(tries: Tries, options?: { readonly requestTimeoutMs?: number }): Promise<BareProducer>;
  transactional(id: string, tries: Tries): Promise<BareTransactionalProducer>;
  /** What its consumer of committed records delivers from an offset on, up to a value that must be there. */
  consume(topic: string, offset: number, until: string): Promise<string[]>;
  /** The position that a consumer of the group would start from; -1 where there is none. */
  position(group: string, topic: string, partition: number): Promise<number>;
  /** The same client as a user of a broker with access control, where the user's name is the password. */
  as(user: string, broker: string): BareClient;
  /** How often a member of a group is given the topic's one message while it takes this long over it. */
  deliveries(topic: string, group: string, workMs: number): Promise<number>;
}
