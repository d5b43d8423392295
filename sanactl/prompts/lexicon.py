"""What GenEval's classes and colours, and the built-in world's shapes, are called in Chinese and as emoji.

A line: the English name; its Chinese names; its emoji, or -. A translation is right with any of them. Emoji may also
leave the English word.
"""

from __future__ import annotations

from functools import cache

__all__ = ["chinese", "emoji"]

_LINES = """
red            红                       ❤️ 🔴 🟥 🍎 🌹
orange         橙 橘 桔                  🧡 🟠 🟧 🍊
yellow         黄                       💛 🟡 🟨
green          绿                       💚 🟢 🟩
blue           蓝                       💙 🔵 🟦
purple         紫                       💜 🟣 🟪
pink           粉                       🩷 💗 💖 💕 🌸
brown          棕 褐 咖啡色 啡色           🤎 🟤 🟫
black          黑                       🖤 ⚫ ⬛
white          白                       🤍 ⚪ ⬜
circle         圆                       ⭕ 🔴 🟠 🟡 🟢 🔵 🟣 🟤 ⚫ ⚪ 🔘
square         方                       🔲 🔳 🟥 🟧 🟨 🟩 🟦 🟪 🟫 ⬛ ⬜ ◼️ ◻️
triangle       三角                      🔺 🔻 📐
star           星                       ⭐ 🌟 ✨ ★ ☆
heart          心                       💟 ❤️ 🧡 💛 💚 💙 💜 🩷 🤎 🖤 🤍 💗 💖 ♥️
cross          十字 叉                    ➕ ✚ ✖️ ❌ ✝️
person         人 男 女                   🧑 👤 👨 👩 🧍 🚶 🙍
bicycle        自行车 单车 脚踏车           🚲 🚴
car            汽车 轿车 小车 车            🚗 🚙 🏎️ 🚘
motorcycle     摩托车 机车                 🏍️ 🛵
airplane       飞机                      ✈️ 🛩️ 🛫
bus            巴士 公交 公共汽车 客车       🚌 🚍 🚎
train          火车 列车                  🚂 🚆 🚄 🚅 🚃 🚋
truck          卡车 货车                  🚚 🚛 🛻
boat           船 艇 舟                   🚤 ⛵ 🛥️ 🚣 ⛴️ 🛶
traffic light  红绿灯 交通灯 信号灯          🚦 🚥
fire hydrant   消防栓 消火栓 消防龙头        🧯 🚒
stop sign      停车标志 停止标志 停车牌 停止牌 停车标识 停止标识 停车指示牌 停 🛑
parking meter  停车计时 停车收费 停车咪表 停车表 咪表 🅿️
bench          长椅 长凳 凳               🪑
bird           鸟                       🐦 🐤 🐥 🕊️ 🦜 🐧 🦅
cat            猫                       🐱 🐈 😺 😸
dog            狗 犬                     🐶 🐕 🐩
horse          马                       🐴 🐎
sheep          羊                       🐑 🐏
cow            牛                       🐄 🐮
elephant       象                       🐘
bear           熊                       🐻 🧸
zebra          斑马                      🦓
giraffe        长颈鹿                     🦒
backpack       背包 书包 双肩包             🎒
umbrella       伞                       ☂️ ☔ 🌂 ⛱️
handbag        手提包 手袋 提包 包          👜 👛
tie            领带                      👔
suitcase       行李箱 手提箱 旅行箱 箱       🧳 💼
frisbee        飞盘 飞碟                  🥏
skis           滑雪板 滑雪 雪橇             🎿
snowboard      滑雪板 单板 雪板             🏂
sports ball    球                       ⚽ 🏀 🏈 ⚾ 🎾 🏐 🏉 🥎
kite           风筝                      🪁
baseball bat   棒球棒 球棒 棒球棍 球棍        ⚾ 🏏
baseball glove 棒球手套 手套               🥎 ⚾ 🧤
skateboard     滑板                      🛹
surfboard      冲浪板                     🏄
tennis racket  网球拍 球拍                 🎾
bottle         瓶                       🍾 🍼 🧴
wine glass     酒杯                      🍷
cup            杯                       ☕ 🥤 🍵 🏆
fork           叉                       🍴 🍽️
knife          刀                       🔪 🗡️ 🍴
spoon          勺 匙                     🥄
bowl           碗                       🥣 🍜
banana         香蕉 蕉                    🍌
apple          苹果                      🍎 🍏
sandwich       三明治 三文治               🥪
broccoli       西兰花 花椰菜 西蓝花          🥦
carrot         胡萝卜 红萝卜               🥕
hot dog        热狗                      🌭
pizza          披萨 比萨 匹萨 薄饼           🍕
donut          甜甜圈 多纳圈 圈饼           🍩
cake           蛋糕                      🍰 🎂 🧁
chair          椅                       🪑 💺
couch          沙发 躺椅                  🛋️
potted plant   盆栽 盆景 植物 盆            🪴
bed            床                       🛏️ 🛌
dining table   餐桌 饭桌 桌               🍽️
toilet         马桶 厕所 坐便 抽水           🚽
tv             电视                      📺
laptop         笔记本 手提电脑 膝上          💻
computer mouse 鼠标 滑鼠                  🖱️
tv remote      遥控                      📺 🎛️
computer keyboard 键盘                   ⌨️ 🎹
cell phone     手机 电话                  📱 📲 🤳
microwave      微波炉                     ♨️
oven           烤箱 烤炉                   ♨️
toaster        烤面包机 吐司机 面包机 多士炉    🍞
sink           水槽 洗手池 水池 洗脸盆 洗手盆 水盆 🚰
refrigerator   冰箱 雪柜                   🧊
book           书                       📖 📕 📚 📗 📘 📙
clock          钟 时钟 表                 🕰️ ⏰ 🕐 🕒 🕛
vase           花瓶                      🏺 💐
scissors       剪刀 剪                    ✂️
teddy bear     泰迪熊 玩具熊 玩偶熊 毛绒熊 泰迪 🧸 🐻
hair drier     吹风机 电吹风 吹风            💨
toothbrush     牙刷                      🪥
"""


@cache
def _table() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    found = {}
    for line in _LINES.strip().splitlines():
        words = line.split()
        english = [word for word in words if word.isascii()]
        rest = words[len(english) :]
        han = tuple(word for word in rest if "\u4e00" <= word[0] <= "\u9fff")
        # The selector of a picture is left out: texts have an emoji with it and without.
        pictures = tuple(word.removesuffix("\ufe0f") for word in rest if word not in han)
        found[" ".join(english)] = (han, pictures)
    return found


def chinese(name: str) -> tuple[str, ...]:
    """The Chinese names of a class or colour; none for one that is not in the table."""
    return _table().get(name, ((), ()))[0]


def emoji(name: str) -> tuple[str, ...]:
    """The emoji of a class or colour, without selectors; none for one that is not in the table."""
    return _table().get(name, ((), ()))[1]
