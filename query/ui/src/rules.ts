/** Rules and alerts as Prometheus' API tells them. */
import type { Labels } from './api';

export interface Alert { labels: Labels; annotations: Labels; state: 'pending' | 'firing' | 'inactive'; activeAt?: string; keepFiringSince?: string; value: string }
export interface Rule {
  type: 'alerting' | 'recording'; name: string; query: string; duration?: number; keepFiringFor?: number; labels?: Labels; annotations?: Labels; alerts?: Alert[];
  health: 'ok' | 'err' | 'unknown'; lastError?: string; evaluationTime: number; lastEvaluation: string; state?: 'firing' | 'pending' | 'inactive' | 'unknown';
}
export interface Group { name: string; file: string; interval: number; limit?: number; rules: Rule[]; evaluationTime: number; lastEvaluation: string }
export interface Rules { groups: Group[] }
export const STATES = ['firing', 'pending', 'inactive'] as const;
export const never = (t: string | undefined) => !t || t.startsWith('0001-');
