"""The plain words, names and scripts the demo's text is drawn from. Data only."""


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDS = _listed(
    "apple apricot arrow autumn banana basket beach bear bell berry bicycle bird blanket boat book "
    "bottle bread breeze bridge brother brush bucket butter button cabin cactus cake camel camera "
    "candle canoe carpet carrot castle cat cedar cello chair cheese cherry circle clock cloud "
    "clover coast coat coffee comet copper coral corn cotton crane cricket crystal cup curtain "
    "daisy dance dawn deer desert diamond dog dolphin door dragon dream drum duck eagle earth "
    "engine evening falcon farmer feather fern field finger fire fish flame flower flute forest "
    "fountain fox friend frog fruit garden garlic giraffe glass glove goat gold grape grass guitar "
    "hammer harbor hat hawk hazel heart hill holly honey horse house ice island ivory ivy jacket "
    "jungle kettle key kitchen kite kitten ladder lake lamp lantern laptop lemon letter lily lion "
    "lizard lunch magnet mango maple marble market meadow melon melody mint mirror monkey moon "
    "morning moss mother mountain mouse museum music needle nest night notebook oak ocean olive "
    "onion orange orchard orchid otter owl oyster paint panda paper parrot pasta peach pear pearl "
    "pebble pencil penguin pepper piano picture pillow pine pirate planet plum pocket poem pond "
    "poppy potato prairie pumpkin purple puzzle queen rabbit radio rain rainbow raven ribbon rice "
    "ring river robot rocket rose saddle salmon salt sand school sea shadow sheep shell ship "
    "shoe silk silver sister sky snow soup sparrow spider spoon spring squirrel star station "
    "stone storm straw street summer sun swan table tea teacher thunder ticket tiger tomato tower "
    "train tree trumpet tulip turtle umbrella valley velvet village violin wagon walnut water "
    "whale wheat wheel willow wind window winter wizard wolf yellow zebra the quick brown and over "
    "with hello world good this that small big test stream token model server request please"
)

NAMES = _listed(
    "Ann Ben Carla David Emma Felix Grace Hugo Ines Jack Kate Leo Maria Nina Oscar Paul Quinn Rosa "
    "Sam Tara Uma Victor Wendy Xena Yara Zoe Alice Bob Clara Dan Eva Frank Gina Harry Iris John "
    "Karl Lucy Mark Nora Olga Peter Ruth Simon Tom Ursula Vera Walter Yusuf Zara Amir Chloe"
)

ACCENTED = _listed(
    "café naïve résumé crème brûlée jalapeño piñata über Zürich façade voilà São Paulo Málaga "
    "Łódź Århus Reykjavík Köln señor élève garçon déjà smörgåsbord žlutý kůň naïveté tête œuvre"
)

JOINED_EMOJI = ("👩‍🚀", "👍🏽", "🇫🇷", "🏳️‍🌈", "👨‍👩‍👧", "❤️", "☀️", "✅", "🇯🇵", "👋🏻", "✈️", "⭐")

# First and last code point of the scripts that copying is practised on.
SCRIPTS = (
    (0x4E00, 0x9FA5),  # Chinese characters
    (0x4E00, 0x9FA5),
    (0x3041, 0x3096),  # hiragana
    (0x30A1, 0x30FA),  # katakana
    (0xAC00, 0xD7A3),  # hangul
    (0x0430, 0x044F),  # Cyrillic
    (0x03B1, 0x03C9),  # Greek
    (0x05D0, 0x05EA),  # Hebrew
    (0x0905, 0x0939),  # Devanagari
)

EMOJI = ((0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF))
