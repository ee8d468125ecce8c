"""Texts in many scripts, with what tokenizers trip over; the same on every machine."""

import random

POOLS = (
    "abcdefghijklmnopqrstuvwxyz",
    "THE QUICK BROWN FOX'S can't we'll I'd they've",
    "0123456789.,;:!?-_()[]{}<>|/\\\"'`~@#$%^&*+= ",
    "éèüßñçøåÀÉİıŁžǅ",
    "人生旅天气公园日本語のテストカタカナ한국어안녕",
    "Приветкакдела ΚαλημέραΣς",
    "नमस्ते दुनिया ไทยภาษา עברית العربية",
    "😀👩\u200d👩\u200d👧🇩🇪❤\ufe0f🏽",
    "\u200b\u00a0\u3000\t\n\r\u0300\u0301\ufeff\u2028\u00ad\u0085",
    "ﬁﬂ①Ⅳ㎏½ＡＢ\u2126\u212b𝒜𝟘",
    "\x00\x01\x1f\x7f\ufffd",
)
SENTENCES = (
    "",
    " ",
    "A red circle moves up; the sign says \"CAT 42\".",
    "FPS-16 A cat, walking.  Two spaces,\tand a tab.",
    "Un café à l'été: «naïve», 100 % œuvre.",
    "今天天气很好，我们去公园散步。",
    "こんにちは、世界！カタカナもＡＢＣも。",
    "안녕하세요 세계",
    "Привет, как дела? Всё хорошо.",
    "Καλημέρα κόσμε, ΟΔΥΣΣΕΎΣ",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "שלום עולם",
    "emoji: 😀 family 👩\u200d👩\u200d👧 flag 🇩🇪",
    "e\u0301 is not \u00e9 until it is composed",
    "it's I'd we've they'll o'clock 'tis",
    "x" * 300,
    "long " * 200,
)


def mixed(count: int) -> list[str]:
    """So many texts: sentences, then words drawn from one script or several."""
    rng = random.Random(8)
    texts = list(SENTENCES)
    while len(texts) < count:
        pools = rng.sample(POOLS, rng.randint(1, 3))
        texts.append(" ".join(_word(rng, pools) for _ in range(rng.randint(1, 6))))
    return texts


def _word(rng: random.Random, pools: list[str]) -> str:
    return "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 8)))
