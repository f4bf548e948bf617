/** What the model broker may do wrong, call by call. */

/** Probability of each fault, per call. All 0: a broker that is merely slow. */
export interface LogFaults {
  /** Refused before anything happened. */
  unavailable: number;
  /** Reported as unknown, and appended. */
  unknownAppended: number;
  /** Reported as unknown, and not appended. */
  unknownLost: number;
  /** Reported as unknown, and appended up to some seconds later. */
  unknownLate: number;
  /** K1: reported as a success, and not appended. */
  swallowed: number;
  /** Reported as a success, and appended once more up to some seconds later. */
  repeated: number;
  /** A read fails. */
  readFault: number;
}

export const noLogFaults: LogFaults = {
  unavailable: 0,
  unknownAppended: 0,
  unknownLost: 0,
  unknownLate: 0,
  swallowed: 0,
  repeated: 0,
  readFault: 0,
};
