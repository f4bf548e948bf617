/** The bounds of what a decoder keeps, whatever comes in (I13). */

export interface DecoderLimits {
  /** Exporters (address, observation domain, protocol) that are known at a time; datagrams of further ones are refused. */
  readonly exportersMax: number;
  readonly exportersPerAddressMax: number;
  /** Fields of all templates and samplers together; each template costs a few more than it has. */
  readonly fieldsMax: number;
  readonly templatesPerExporterMax: number;
  readonly fieldsPerTemplateMax: number;
  /** A template that is not repeated for so long is forgotten. */
  readonly templateExpiryMs: number;
  /** How long, and how many octets of, data sets wait for their template. */
  readonly waitMs: number;
  readonly waitBytesMax: number;
  /** An exporter that is silent for so long is forgotten. */
  readonly exporterExpiryMs: number;
}

export const defaultDecoderLimits: DecoderLimits = {
  exportersMax: 10_000,
  exportersPerAddressMax: 5_000,
  fieldsMax: 2_000_000,
  templatesPerExporterMax: 1_000,
  fieldsPerTemplateMax: 512,
  templateExpiryMs: 30 * 60_000,
  waitMs: 30_000,
  waitBytesMax: 4 * 1024 * 1024,
  exporterExpiryMs: 24 * 3_600_000,
};
